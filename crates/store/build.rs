//! Rebuilds when a migration is added: `migrate!` embeds the folder, and cargo cannot see a new file by itself.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
