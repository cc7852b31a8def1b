//! `upload`: the documents that a flow takes.

use super::*;

fn with(upload: &str) -> String {
    format!("flow: t\nupload: {upload}\nsteps:\n  - {{ id: one, native: one }}\n")
}

#[test]
fn a_flow_takes_documents_of_the_types_that_it_names() {
    let flow = parse(&with("{ media_types: [Application/PDF, image/*], max_bytes: 20000000 }")).unwrap();
    let upload = flow.upload().unwrap();
    assert_eq!(upload.bytes_max, Some(20_000_000));
    for taken in ["application/pdf", "Application/PDF; version=1.7", "image/png", "IMAGE/svg+xml"] {
        assert!(upload.takes(taken), "{taken}");
    }
    for refused in ["", "pdf", "application/json", "application/pdfx", "imagex/png"] {
        assert!(!upload.takes(refused), "{refused}");
    }
    assert!(parse(&with("{ media_types: ['*/*'] }")).unwrap().upload().unwrap().takes("a/b"));
    assert_eq!(Definition::from_document(flow.document()).unwrap().upload(), Some(upload));
}

#[test]
fn what_names_no_documents_is_refused_with_what_would_do() {
    for (upload, said) in [
        ("{}", "`upload` has no `media_types`"),
        ("{ media_types: [] }", "`media_types` has 0 entries"),
        ("{ media_types: [pdf] }", "`pdf` is no media type"),
        ("{ media_types: ['*/pdf'] }", "`*/pdf` is no media type"),
        ("{ media_types: ['text/plain; charset=utf-8'] }", "is no media type"),
        ("{ media_types: [a/b], max_bytes: 0 }", "`max_bytes`"),
        ("{ media_types: [a/b] }\ninput: true", "a flow with `upload` has no `input`"),
    ] {
        refused(&with(upload), &[said]);
    }
}
