use serde::{Deserialize, Serialize};
use tide::{Body, Request};

/// What a client sends: the lines of an order.
#[derive(Deserialize)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    count: u32,
    price_cents: u32,
}

/// What it gets back.
#[derive(Serialize)]
struct Total {
    items: u64,
    total_cents: u64,
}

/// Adds up the order that is posted to `/orders`.
pub fn handler() -> tide::Server<()> {
    let mut app = tide::new();
    app.at("/orders").post(|mut request: Request<()>| async move {
        let order: Order = request.body_json().await?;
        let total = Total {
            items: order.lines.iter().map(|l| u64::from(l.count)).sum(),
            total_cents: order.lines.iter().map(|l| u64::from(l.count) * u64::from(l.price_cents)).sum(),
        };
        Body::from_json(&total)
    });
    app
}
