//! The dashboard: files in `pool/assets`, built into the program. They read only the API.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

/// Scripts, styles and data come from the pool only; the page may not be framed and has no form targets.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("../../assets/index.html");
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// Name, content type and text of each file under `/assets/`.
const FILES: [(&str, &str, &str); 7] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../../assets/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
    ("main.js", SCRIPT, include_str!("../../assets/main.js")),
    ("view.js", SCRIPT, include_str!("../../assets/view.js")),
    ("money.js", SCRIPT, include_str!("../../assets/money.js")),
    ("chart.js", SCRIPT, include_str!("../../assets/chart.js")),
    ("dom.js", SCRIPT, include_str!("../../assets/dom.js")),
];

fn answer(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

/// `/`.
pub(super) async fn page() -> Response {
    answer("text/html; charset=utf-8", PAGE)
}

/// `/assets/NAME`.
pub(super) async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => answer(kind, text),
        None => super::unknown().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_no_other_place() {
        for (name, _, text) in FILES.iter().chain(&[("index.html", "", PAGE)]) {
            let plain = text.replace("http://www.w3.org/2000/svg", "");
            for foreign in [
                "http:",
                "https:",
                "url(",
                "@import",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
            ] {
                assert!(!plain.contains(foreign), "{name} has {foreign}");
            }
        }
    }

    #[test]
    fn the_page_and_its_scripts_name_files_that_exist() {
        let names = |text: &'static str| {
            text.split(['"', '\''])
                .filter_map(|part| part.strip_prefix("/assets/").or_else(|| part.strip_prefix("./")))
        };
        for name in FILES.iter().flat_map(|(.., text)| names(text)).chain(names(PAGE)) {
            assert!(FILES.iter().any(|(known, ..)| *known == name), "{name} is not served");
        }
        assert!(names(PAGE).count() >= 3, "style, icon and script");
    }
}
