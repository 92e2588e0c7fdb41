use tide::{Request, Response, StatusCode};

/// Tells whether a year is a leap year in the Gregorian calendar.
pub fn is_leap_year(year: u32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Answers `/leap/2028` with `true` or `false`, and 400 where no year is given.
pub fn handler() -> tide::Server<()> {
    let mut app = tide::new();
    app.at("/leap/:year").get(|request: Request<()>| async move {
        let text = request.param("year")?;
        Ok(match text.parse() {
            Ok(year) => Response::from(format!("{}\n", is_leap_year(year))),
            Err(_) => Response::builder(StatusCode::BadRequest).body(format!("{text:?} is not a year\n")).build(),
        })
    });
    app
}
