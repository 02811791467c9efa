//! Further pages of a list: `Link` with `rel="next"` (RFC 8288).
//!
//! Only for a caller who asks for them, only at the same origin and below the server's path, and at most as many as
//! one call may get.

use http::{HeaderMap, header};
use provost_mcp::{RawJson, array_items, array_of};
use url::Url;

use crate::UpstreamError;

/// Bytes of the `Link` headers of one answer.
const MAX_LINK_BYTES: usize = 8 * 1024;

/// Where the next page is. `None`: there is none, or none that would be asked for.
pub(super) fn next(headers: &HeaderMap, asked: &Url, server: &Url) -> Option<Url> {
    let links = headers.get_all(header::LINK).iter().filter_map(|v| v.to_str().ok());
    let target = links.filter(|text| text.len() <= MAX_LINK_BYTES).find_map(next_of)?;
    let url = asked.join(target).ok()?;
    let base = server.path().trim_end_matches('/');
    let is_below = url.path().strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_bare = url.username().is_empty() && url.password().is_none();
    (url.origin() == server.origin() && is_below && is_bare && url != *asked).then_some(url)
}

/// The target of the first link of a header whose relations name `next`.
fn next_of(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, tail) = after.split_once('>')?;
        let end = end_of_link(tail);
        let (parameters, more) = tail.split_at(end);
        if parameters.split(';').any(is_next) {
            return Some(target.trim());
        }
        rest = more;
    }
    None
}

/// Where a link's parameters end: at a comma that is not in quotes.
fn end_of_link(text: &str) -> usize {
    let mut is_quoted = false;
    text.char_indices()
        .find(|(_, c)| {
            is_quoted ^= *c == '"';
            *c == ',' && !is_quoted
        })
        .map_or(text.len(), |(at, _)| at)
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|rel| rel.eq_ignore_ascii_case("next"))
}

/// One list of several, which may not be longer than `max_bytes` together.
pub(super) fn joined(pages: &[RawJson], max_bytes: usize) -> Result<RawJson, UpstreamError> {
    if pages.iter().map(|page| page.as_bytes().len()).sum::<usize>() > max_bytes {
        return Err(UpstreamError::TooLarge(max_bytes));
    }
    let mut all = Vec::new();
    for page in pages {
        all.extend(array_items(page)?);
    }
    Ok(array_of(&all))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_next_page_is_of_the_same_service() {
        let server = Url::parse("https://api.example/v1").unwrap();
        let asked = Url::parse("https://api.example/v1/tickets?page=1").unwrap();
        for (link, expect) in [
            (r#"<https://api.example/v1/tickets?page=2>; rel="next""#, Some("https://api.example/v1/tickets?page=2")),
            (r#"</v1/tickets?page=2>;rel=next"#, Some("https://api.example/v1/tickets?page=2")),
            (r#"<?page=2>; rel="prev next""#, Some("https://api.example/v1/tickets?page=2")),
            (
                r#"<?page=0>; rel="prev", <?page=2>; title="a, b; c"; rel="next""#,
                Some("https://api.example/v1/tickets?page=2"),
            ),
            (r#"<?page=0>; rel="prev""#, None),
            (r#"<?page=1>; rel="next""#, None),
            (r#"<https://evil.example/v1/tickets?page=2>; rel="next""#, None),
            (r#"<http://api.example/v1/tickets?page=2>; rel="next""#, None),
            (r#"<https://api.example:444/v1/tickets>; rel="next""#, None),
            (r#"<https://a@api.example/v1/tickets>; rel="next""#, None),
            (r#"<//evil.example/v1>; rel="next""#, None),
            (r#"</v1/../admin>; rel="next""#, None),
            (r#"</v10/tickets>; rel="next""#, None),
            (r#"<https://api.example/v1; rel="next""#, None),
            ("rel=next", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, HeaderValue::from_str(link).unwrap());
            assert_eq!(next(&headers, &asked, &server).as_ref().map(Url::as_str), expect, "{link}");
        }
    }

    #[test]
    fn pages_become_one_list() {
        let page = |text: &'static str| RawJson::from_checked(text.into());
        let pages = [page("[1, 2.50]"), page("[]"), page(r#"["a,]"]"#)];
        assert_eq!(joined(&pages, 100).unwrap().as_str(), r#"[1,2.50,"a,]"]"#);
        assert_eq!(joined(&pages, 10), Err(UpstreamError::TooLarge(10)));
    }
}
