//! The whole service in one crate, as the original's build images have it.

use async_std::task;
use std::env;

mod functions;

fn main() -> Result<(), std::io::Error> {
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_string());
    task::block_on(async {
        tide::log::start();
        let mut app = tide::new();
        app.at("/").nest(functions::handler());
        app.listen(format!("0.0.0.0:{port}")).await
    })
}
