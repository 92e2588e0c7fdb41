//! The plan as one page that needs nothing else: no network, no file beside it.
//!
//! The page holds the document as JSON, and a script draws it. Invariant: what comes from outside
//! stays data. It stands in the page as JSON in which no `<` is left, the script makes elements and
//! text of it and never markup, and the page's policy admits no script and no style but its own, by
//! their digests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roche_engine::Digest;

use crate::document::Document;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(include_str!("layout.js"), include_str!("graph.js"), include_str!("page.js"));
const BODY: &str = include_str!("page.html");

/// Renders the plan.
pub(super) fn render(document: &Document) -> String {
    let json = serde_json::to_string(document).expect("a document is always JSON");
    let data = crate::text::json(&json).replace('<', "\\u003c");
    let name = document.image.names.first().map_or("release", String::as_str);
    let unresolved = if document.resolved { "" } else { "<!-- unresolved -->" };
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        source(STYLE),
        source(SCRIPT)
    );
    format!(
        "<!doctype html>{unresolved}\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n{BODY}<script type=\"application/json\" id=\"document\">{data}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        escaped(&crate::text::one_line(name))
    )
}

/// Names a script or a style by its digest, as content security policies do.
fn source(text: &str) -> String {
    let hex = Digest::of(text.as_bytes()).hex();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).filter_map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect();
    format!("'sha256-{}'", STANDARD.encode(bytes))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dry_run::tests::document;

    #[test]
    fn a_usual_page_is_small_and_names_no_other_place() {
        let page = render(&document(0));
        assert!(page.len() < 300_000, "{} bytes", page.len());
        let code = [STYLE, SCRIPT, BODY].concat();
        let outside = code.replace("http://www.w3.org/2000/svg", "");
        for word in ["http:", "https:", "//cdn", "src=", "@import", "url(", "fetch(", "innerHTML", "insertAdjacentHTML", "eval("]
        {
            assert!(!outside.contains(word), "{word}");
        }
    }

    #[test]
    fn the_document_comes_out_of_the_page_as_it_went_in() {
        let document = document(30);
        let page = render(&document);
        let (_, rest) = page.split_once("id=\"document\">").unwrap();
        let (data, _) = rest.split_once("</script>").unwrap();
        assert!(!data.contains('<'));
        assert_eq!(serde_json::from_str::<Document>(data).unwrap(), document);
    }

    #[test]
    fn a_policy_names_what_the_page_holds() {
        // printf %s 'a' | openssl dgst -sha256 -binary | base64
        assert_eq!(source("a"), "'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='");
    }
}
