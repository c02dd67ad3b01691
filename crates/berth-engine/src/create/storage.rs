//! `--storage-opt`: how much a container may write.

use berth_api::container::HostConfig;

use crate::Error;
use crate::logging::value::binary_size;

/// Docker's answer where the file system keeps no limits.
pub const UNSUPPORTED: &str =
    "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";

/// The limit of a container's writable layer in bytes, if it was given one; 0 for none.
pub fn limit(host: &HostConfig) -> Result<Option<u64>, Error> {
    let mut limit = None;
    for (key, value) in host.storage_opt.iter().flatten() {
        if !key.eq_ignore_ascii_case("size") {
            return Err(Error::InvalidParameter(format!("Unknown option {key}")));
        }
        limit = Some(binary_size(value).map_err(Error::InvalidParameter)?);
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Option<u64>, String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let host = HostConfig { storage_opt: Some(options.collect()), ..HostConfig::default() };
        limit(&host).map_err(|error| error.to_string())
    }

    #[test]
    fn the_size_is_read_as_docker_does() {
        assert_eq!(limit(&HostConfig::default()).unwrap(), None);
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("size", "10M")]), Ok(Some(10 << 20)));
        assert_eq!(read(&[("SIZE", "1.5g")]), Ok(Some(3 << 29)));
        assert_eq!(read(&[("size", "0")]), Ok(Some(0)));
        assert_eq!(read(&[("size", "much")]), Err("invalid size: 'much'".into()));
        assert_eq!(read(&[("inodes", "5")]), Err("Unknown option inodes".into()));
    }
}
