//! stub
use super::Failure;
use crate::Error;
use crate::solver::Export;
pub(super) struct FileSend;
impl FileSend {
    pub(super) fn new(_: &str, _: &[Export], _: Failure) -> Self { Self }
    pub(super) fn is_empty(&self) -> bool { true }
    pub(super) fn commit(&self) -> Result<(), Error> { Ok(()) }
    pub(super) async fn answer(self: std::sync::Arc<Self>, _: http::Request<hyper::body::Incoming>) -> http::Response<tonic::body::Body> {
        tonic::Status::unimplemented("not offered").into_http()
    }
}
