//! A program that reads its configuration.
fn main() {
    let text = std::fs::read_to_string("/etc/app.toml").expect("a configuration");
    println!("rust {} {}", itoa::Buffer::new().format(text.len()), text.trim());
}
