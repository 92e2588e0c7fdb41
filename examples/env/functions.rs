use std::env;

/// Greets with the word that the variable `GREETING` holds when the request arrives.
pub fn handler() -> tide::Server<()> {
    let mut app = tide::new();
    app.at("/").get(|_| async {
        let greeting = env::var("GREETING").unwrap_or_else(|_| "GREETING is not set".to_string());
        Ok(format!("{greeting}\n"))
    });
    app
}
