//! TLS by rustls, with one provider of cryptography for the whole process.

/// Makes `ring` the process's provider of cryptography. Call it first in `main`, and in tests that make HTTP calls.
/// Later calls do nothing.
pub fn install_ring() {
    // The only error is that a provider is installed already, which is what the call is for.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
