//! The place of the function: a release puts the user's file here.
//!
//! A build image is made with this answer, so that every dependency is already
//! compiled when the first release arrives.

/// Answers every request for `/` with a text that no release should ever show.
pub fn handler() -> tide::Server<()> {
    let mut app = tide::new();
    app.at("/").get(|_| async { Ok("this build image holds no function yet\n") });
    app
}
