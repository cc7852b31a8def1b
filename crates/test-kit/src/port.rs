//! Ports that nobody else will take.

use std::fs::{self, File};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

/// Below the range from which the kernel draws the ports of outgoing connections: a client that tries to reach a server
/// which is down could otherwise take the server's port, or connect to itself.
const PORT_MIN: u16 = 20_000;
const PORT_COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1, ours until dropped: across processes too, by a lock file that goes with the process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a port that is free.
    pub fn take() -> Result<Self> {
        let folder = crate::folder::data_root()?.join("ports");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let first = (std::process::id().wrapping_mul(97) % u32::from(PORT_COUNT)) as u16;
        for _ in 0..PORT_COUNT {
            let offset = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = PORT_MIN + (u32::from(first) + u32::from(offset)) as u16 % PORT_COUNT;
            let path = folder.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("making {}", path.display()))?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no free port from {PORT_MIN} on");
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
