/// Says hello to whoever asks for `/`.
pub fn handler() -> tide::Server<()> {
    let mut app = tide::new();
    app.at("/").get(|_| async { Ok("Hello, World!\n") });
    app
}
