//! Which implementation of cryptography TLS goes by.

use rustls::crypto::{CryptoProvider, ring};

/// Chooses one for this process, unless one was chosen: crates bring two, and rustls panics where it should pick one.
pub fn choose_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // An error says that another thread has just chosen.
        let _ = ring::default_provider().install_default();
    }
}
