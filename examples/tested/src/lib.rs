//! The tests of the function. A release runs them before it makes an image.

pub mod functions;

#[cfg(test)]
mod tests {
    use super::functions::{handler, is_leap_year};
    use tide::http::{Method, Request, Response, Url};

    async fn ask(path: &str) -> (u16, String) {
        let url = Url::parse("http://localhost").unwrap().join(path).unwrap();
        let mut response: Response = handler().respond(Request::new(Method::Get, url)).await.unwrap();
        (response.status().into(), response.body_string().await.unwrap())
    }

    #[test]
    fn a_century_is_a_leap_year_every_fourth_time() {
        assert!(is_leap_year(2000));
        assert!(!is_leap_year(1900));
        assert!(is_leap_year(2028));
        assert!(!is_leap_year(2026));
    }

    #[async_std::test]
    async fn the_year_is_read_from_the_path() {
        assert_eq!(ask("/leap/2028").await, (200, "true\n".to_string()));
    }

    #[async_std::test]
    async fn what_is_no_year_is_refused() {
        assert_eq!(ask("/leap/soon").await, (400, "\"soon\" is not a year\n".to_string()));
    }
}
