//! BuildKit daemons.
