#!/bin/sh
exec ./roche-service
