//! Secrets: from their setting, or from a file that another setting names.

use std::fs::File;
use std::io::Read;

use super::error::ConfigError;

/// The most bytes of a file with a secret.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The setting `key` of a section, or the content of the file that `<key>_file` names; empty where neither is set. No
/// error text has any of it in it.
pub(super) fn secret(section: &str, key: &str, value: &str, file: &str) -> Result<String, ConfigError> {
    match (value.is_empty(), file.is_empty()) {
        (_, true) => Ok(value.to_owned()),
        (false, false) => Err(refused(section, key, &format!("set it or `{key}_file`, not both"))),
        (true, false) => {
            read(file).map_err(|reason| refused(section, &format!("{key}_file"), &format!("{file}: {reason}")))
        }
    }
}

/// The error of a setting that holds a secret.
pub(super) fn refused(section: &str, key: &str, reason: &str) -> ConfigError {
    let variable = format!("MEANWHILE__{}__{}", section.to_uppercase(), key.to_uppercase());
    ConfigError::Invalid { section: section.to_owned(), detail: format!("`{key}` ({variable}): {reason}") }
}

/// The text of a file, without the white space around it.
pub(super) fn read(file: &str) -> Result<String, String> {
    let mut text = String::new();
    let opened = File::open(file).map_err(|error| error.to_string())?;
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text.trim().to_owned())
}
