//! Endpoints and headers: what may be in them, and what is shown of them.

use percent_encoding::percent_decode_str;
use ureq::http::header::{HeaderName, HeaderValue};
use ureq::http::{HeaderMap, Uri};

use crate::error::{OtlpError, shown};

/// Checks a URL. `path` is appended to the endpoint of all signals, and none to that of one signal.
pub(crate) fn parse_url(setting: &str, url: &str, path: Option<&str>) -> Result<Uri, OtlpError> {
    let url = url.trim();
    let error = |allowed: &str| OtlpError::new(setting, allowed, without_secrets(url));
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        url.get(..scheme.len())
            .filter(|begin| begin.eq_ignore_ascii_case(scheme))
            .and_then(|_| url.get(scheme.len()..))
    });
    let rest = rest.ok_or_else(|| error("a URL that begins with http:// or https://"))?;
    if !cfg!(feature = "tls") && url.len() - rest.len() == "https://".len() {
        return Err(error("a URL that begins with http:// where the feature `tls` is off"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Also behind a slash or a question mark, which a password may have.
    if rest.contains('@') && !authority.contains('@') {
        return Err(error("a URL without @, also in its path (write %40): a password may be before it"));
    }
    if authority.contains('@') {
        return Err(error("a URL without a user name and a password (give the header `authorization`)"));
    }
    // The client logs URLs as they are, so that a key in one would be seen.
    if url.contains(['?', '#']) {
        return Err(error("a URL without a query (give keys as headers)"));
    }
    let whole = path.map(|path| format!("{}/{path}", url.trim_end_matches('/')));
    let uri: Uri = whole.as_deref().unwrap_or(url).parse().map_err(|_| error("a valid URL"))?;
    let host = uri.host().unwrap_or_default();
    if host.is_empty() {
        return Err(error("a URL with a host"));
    }
    let has_port = authority.get(host.len()..).is_some_and(|port| !port.is_empty());
    if has_port && uri.port_u16().is_none_or(|port| port == 0) {
        return Err(error("a URL with a port from 1 to 65535"));
    }
    Ok(uri)
}

/// Returns a URL as errors show it, without what may be secret.
pub(crate) fn without_secrets(url: &str) -> String {
    shown(&masked(url))
}

/// Returns a URL without what may be secret in it: all before the last `@`, since a password may have any sign, and all behind `?` or `#`.
pub(crate) fn masked(url: &str) -> String {
    let is_scheme =
        |begin: &str| begin.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let begin = url.find("://").filter(|end| url.get(..*end).is_some_and(is_scheme)).map_or(0, |end| end + 3);
    let (scheme, rest) = url.split_at(begin);
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("***@", rest));
    let (rest, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let query = query.chars().next().map_or(String::new(), |sign| format!("{sign}***"));
    format!("{scheme}{user}{rest}{query}")
}

/// Returns the pairs of a list such as `a=1,b=2`, decoded. Without a pair, `hides` says whether the error may show it.
pub(crate) fn parse_pairs(
    setting: &str,
    list: &str,
    hides: bool,
) -> Result<Vec<(String, String)>, OtlpError> {
    let parts = list.split(',').enumerate().filter(|(_, part)| !part.trim().is_empty());
    let parsed = parts.map(|(number, part)| {
        let error = || {
            let value = if hides { format!("something else as part {}", number + 1) } else { shown(part) };
            OtlpError::new(setting, "a list such as name=value,name=value", value)
        };
        let (name, value) = part.split_once('=').ok_or_else(error)?;
        let decode =
            |text: &str| percent_decode_str(text.trim()).decode_utf8().map(String::from).map_err(|_| error());
        let (name, value) = (decode(name)?, decode(value)?);
        // A key in base64 ends with such signs: it is no name.
        let is_no_pair = name.is_empty() || hides && value.bytes().all(|byte| byte == b'=');
        if is_no_pair { Err(error()) } else { Ok((name, value)) }
    });
    parsed.collect()
}

/// Adds a header, the `number`th from 1. Nobody shows its value, nor its name, in which a key may stand by mistake.
pub(crate) fn insert_header(
    setting: &str,
    headers: &mut HeaderMap,
    number: usize,
    (name, value): (&str, &str),
) -> Result<(), OtlpError> {
    let other = || format!("something else as header {number}");
    let key = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| OtlpError::new(setting, "headers with valid names", other()))?;
    // They describe the body, which the sink makes itself.
    if ["content-type", "content-encoding", "content-length", "transfer-encoding", "host"]
        .contains(&key.as_str())
    {
        return Err(OtlpError::new(setting, "headers other than those that describe the body", key));
    }
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| OtlpError::new(setting, "headers whose values are visible ASCII", other()))?;
    value.set_sensitive(true);
    headers.insert(key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(url: &str) -> String {
        parse_url("URL", url, Some("v1/logs")).map(|uri| uri.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn urls_are_checked_where_they_are_set() {
        let parsed = |url, path| parse_url("URL", url, path).unwrap().to_string();
        assert_eq!(parsed("http://localhost:4318", Some("v1/logs")), "http://localhost:4318/v1/logs");
        assert_eq!(parsed(" HTTP://h/otlp/ ", Some("v1/logs")), "http://h/otlp/v1/logs");
        assert_eq!(parsed("http://[::1]:4318/as/it/is", None), "http://[::1]:4318/as/it/is");
        let scheme = "URL must be a URL that begins with http:// or https://, got ";
        for (url, value) in [
            ("localhost:4318", "\"localhost:4318\""),
            ("//localhost:4318", "\"//localhost:4318\""),
            ("grpc://localhost:4317", "\"grpc://localhost:4317\""),
            ("", "\"\""),
            ("user:secret@host", "\"***@host\""),
        ] {
            assert_eq!(error_of(url), format!("{scheme}{value}"));
        }
        assert_eq!(error_of("http://"), "URL must be a valid URL, got \"http://\"");
        for port in ["0", "65536", "99999", "x", "-1"] {
            let error = error_of(&format!("http://localhost:{port}/"));
            assert!(error.ends_with(&format!("got \"http://localhost:{port}/\"")), "{error}");
        }
        let error = error_of("http://user:secret@host:1/path?key=secret");
        assert!(error.ends_with("got \"http://***@host:1/path?***\""), "{error}");
        assert!(!error.contains("secret"));
        for url in [
            "http://user:a/secret@host:1/x",
            "http://user:12/secret@host:1/x",
            "http://user:a?secret@host:1/x",
            "http://user:a#secret@host:1/x",
            "http://user:a@secret@host:1/x",
            "http://user:a://secret@host:1/x",
            "user:secret://secret@host:1/x",
            "http://host/#secret",
            "http://user:a/secret@host:1/x?key=secret",
        ] {
            let error = error_of(url);
            assert!(!error.contains("secret") && error.contains("***"), "{error}");
        }
        let error = error_of("http://host/secret@b");
        assert_eq!(
            error,
            "URL must be a URL without @, also in its path (write %40): a password may be before it, got \"http://***@b\""
        );
        let error = error_of("http://host/path?key=secret");
        assert_eq!(
            error,
            "URL must be a URL without a query (give keys as headers), got \"http://host/path?***\""
        );
    }

    #[test]
    fn lists_are_decoded_and_what_is_secret_is_not_shown() {
        let pairs = parse_pairs("LIST", "a=1, b = x%20y%2Cz ,,c=d=e", false).unwrap();
        let expected = [("a", "1"), ("b", "x y,z"), ("c", "d=e")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let error_of = |list, hides| parse_pairs("LIST", list, hides).unwrap_err().to_string();
        assert_eq!(
            error_of("a=1,secret", true),
            "LIST must be a list such as name=value,name=value, got something else as part 2"
        );
        for key in ["a=1,c2VjcmV0==", "a=1,c2VjcmV0cw=", "a=1, c2VjcmV0 = "] {
            let error = error_of(key, true);
            assert!(error.ends_with("got something else as part 2"), "{error}");
        }
        assert_eq!(
            error_of("a=1,=b", false),
            "LIST must be a list such as name=value,name=value, got \"=b\""
        );
        assert!(error_of("a=%ff", false).contains("got \"a=%ff\""));
        let mut headers = HeaderMap::new();
        let mut error_of =
            |name, value| insert_header("HEADERS", &mut headers, 2, (name, value)).unwrap_err().to_string();
        assert_eq!(
            error_of("Bearer secret", "="),
            "HEADERS must be headers with valid names, got something else as header 2"
        );
        let error = error_of("authorization", "secret\n");
        assert_eq!(
            error,
            "HEADERS must be headers whose values are visible ASCII, got something else as header 2"
        );
        assert!(error_of("Content-Type", "x").ends_with("got content-type"));
        insert_header("HEADERS", &mut headers, 1, ("Authorization", "secret")).unwrap();
        assert_eq!(format!("{headers:?}"), "{\"authorization\": Sensitive}");
    }
}
