use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::decide::Env;

fn evaluate_with<T>(input: &Value, evaluate: impl FnOnce(&Evaluation<'_>) -> T) -> T {
    let vars = [("A", "https://a.example"), ("BAD", "a.example"), ("SLASH", "http://a.example/base/")];
    let vars: BTreeMap<String, String> = vars.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let env = Env { vars, secrets: BTreeMap::new() };
    evaluate(&Evaluation::new(Scope { input, slip: None, step: None, env: Some(&env) }))
}

fn render(text: &str, input: &Value) -> Result<Value, String> {
    let template = Template::text(text).map_err(|error| error.to_string())?;
    evaluate_with(input, |evaluation| template.render(evaluation)).map_err(|error| error.to_string())
}

fn url(text: &str, input: &Value) -> Result<String, String> {
    let url = UrlTemplate::parse(text).map_err(|error| error.to_string())?;
    evaluate_with(input, |evaluation| url.render(evaluation)).map_err(|error| error.to_string())
}

#[test]
fn a_text_that_is_one_expression_keeps_its_type() {
    let input = json!({ "n": 3, "b": true, "z": null, "l": [1, "x"], "m": { "y": 1, "a": { "k": 2 } }, "f": 1.5,
        "big": 18_446_744_073_709_551_615_u64, "t": "text" });
    for name in ["n", "b", "z", "l", "m", "f", "big", "t"] {
        assert_eq!(render(&format!("{{{{ input.{name} }}}}"), &input), Ok(input[name].clone()), "{name}");
    }
    assert_eq!(render("{{ input }}", &input).unwrap().to_string(), input.to_string(), "the order of keys is kept");
    assert_eq!(render("{{ input.n + 1 }}", &input), Ok(json!(4)));
    assert_eq!(render("{{ input.n > 2 and input.b }}", &input), Ok(json!(true)));
}

#[test]
fn two_expressions_side_by_side_are_a_text() {
    let input = json!({ "a": 1, "b": "x" });
    assert_eq!(render("{{input.a}}-{{input.b}}", &input), Ok(json!("1-x")));
    assert_eq!(render("{{ input.a }}{{ input.b }}", &input), Ok(json!("1x")));
    assert_eq!(render(" {{ input.a }}", &input), Ok(json!(" 1")));
    assert_eq!(render("{{ '}}' }}", &input), Ok(json!("}}")));
    assert_eq!(render("{{ {'a': {'b': input.a}} }}", &input), Ok(json!({ "a": { "b": 1 } })));
    assert_eq!(render("", &input), Ok(json!("")));
}

#[test]
fn a_missing_value_is_an_error_that_names_it() {
    let input = json!({ "a": { "b": 1 }, "name": "x", "list": [1] });
    for (text, named) in [
        ("{{ input.total }}", "`input.total` is missing"),
        ("{{ input.a.c.d }}", "`input.a.c.d` is missing"),
        ("hello {{ input.nme }}", "`input.nme` is missing"),
        ("{{ input.total > 1000 }}", "`input.total` is missing"),
        ("{{ input.total == 5 }}", "`input.total` is missing"),
        ("{{ 1 if input.total else 2 }}", "`input.total` is missing"),
        ("{{ not input.total }}", "`input.total` is missing"),
        ("{{ input.total or 5 }}", "`input.total` is missing"),
        ("{{ [input.total] }}", "`input.total` is missing"),
        ("{{ input.total | upper }}", "`input.total` is missing"),
        ("{{ input.total ~ 'x' }}", "`input.total` is missing"),
        ("{{ env.NOPE }}", "`env.NOPE` is missing"),
        ("{{ input.a | default(1) ~ input.z }}", "`input.z` is missing"),
        ("{{ input.a.b.c }}", "no value"),
        ("{{ input.list[7] }}", "no value"),
        ("{{ input['total'] }}", "no value"),
        ("{{ 1 if input.name == 'y' }}", "no value"),
    ] {
        let error = render(text, &input).map(|value| panic!("{text} gave {value}")).unwrap_err();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn a_fallback_covers_a_value_that_is_missing_anywhere_along_its_path() {
    let input = json!({ "a": { "b": 1 }, "z": null });
    for (text, value) in [
        ("{{ input.simulate.payment | default(none) }}", json!(null)),
        ("{{ input.x.y.z | default(5) }}", json!(5)),
        ("{{ input.a.b | default(input.nothing) }}", json!(1)),
        ("{{ input.x | d(input.a.b) }}", json!(1)),
        ("{{ input.z | default(3) }}", json!(null)),
        ("{{ input.z | default(3, true) }}", json!(3)),
        ("{{ input.x is defined }}", json!(false)),
        ("{{ input.x.y is undefined }}", json!(true)),
        ("{{ 'b' in input.a }}", json!(true)),
        ("{{ 'c' in input.a }}", json!(false)),
        ("{{ input.x.y if input.x is defined else 7 }}", json!(7)),
    ] {
        assert_eq!(render(text, &input), Ok(value), "{text}");
    }
}

#[test]
fn what_has_no_plain_form_is_refused_within_a_text() {
    let input = json!({ "z": null, "l": [], "m": {} });
    for name in ["z", "l", "m"] {
        let error = render(&format!("x{{{{ input.{name} }}}}"), &input).unwrap_err();
        assert!(error.contains("must be a text, number or boolean"), "{error}");
    }
}

#[test]
fn an_expression_cannot_run_or_grow_without_bound() {
    let input = json!({ "n": 100_000 });
    assert!(render("{{ 'x' * 100000000000 }}", &input).is_err());
    assert!(render("{{ range(100000000000) | list }}", &input).is_err());
}

#[test]
fn values_in_a_url_are_data() {
    let input = json!({ "id": "a/b?c#d", "space": "ä b&c=d", "n": 7 });
    assert_eq!(url("{{ env.A }}/r/{{ input.id }}", &input).unwrap(), "https://a.example/r/a%2Fb%3Fc%23d");
    assert_eq!(url("{{ env.SLASH }}/r/{{ input.n }}", &input).unwrap(), "http://a.example/base/r/7");
    assert_eq!(
        url("https://x.example/{{ input.n }}-y?q={{ input.space }}&p=..", &input).unwrap(),
        "https://x.example/7-y?q=%C3%A4%20b%26c%3Dd&p=.."
    );
    assert_eq!(url("{{ env.A }}", &input).unwrap(), "https://a.example");
    assert!(url("{{ env.BAD }}/r", &input).unwrap_err().contains("not the base of a URL"));
    assert!(url("{{ env.A }}/r/{{ input.missing }}", &input).unwrap_err().contains("`input.missing` is missing"));
}

#[test]
fn a_value_cannot_take_a_segment_out_of_the_path() {
    for id in ["", ".", "..", "%2e%2e"] {
        let answer = url("{{ env.A }}/r/{{ input.id }}/x", &json!({ "id": id }));
        if id.starts_with('%') {
            assert_eq!(answer.unwrap(), "https://a.example/r/%252e%252e/x");
        } else {
            assert!(answer.unwrap_err().contains("would change the path"), "`{id}`");
        }
    }
    assert!(url("{{ env.A }}/.{{ input.id }}", &json!({ "id": "." })).is_err());
    assert!(url("{{ env.A }}/%2E{{ input.id }}", &json!({ "id": "." })).is_err());
    assert!(url("{{ env.A }}/{{ input.id }}?x", &json!({ "id": ".." })).is_err());
    assert_eq!(url("{{ env.A }}/v.{{ input.id }}", &json!({ "id": "." })).unwrap(), "https://a.example/v..");
}

proptest::proptest! {
    #[test]
    fn no_value_changes_the_shape_of_a_url(id in ".*") {
        if let Ok(url) = url("{{ env.A }}/r/{{ input.id }}/x?q={{ input.id }}", &json!({ "id": id })) {
            let (path, query) = url.split_once('?').unwrap();
            proptest::prop_assert_eq!(path.matches('/').count(), 5);
            proptest::prop_assert!(!query.contains(['/', '&', '#', '?', ' ']));
            proptest::prop_assert!(!path.contains("/../") && !path.contains("/./") && !path.contains("//x"));
        }
    }

    #[test]
    fn any_json_passes_through_unchanged(text in "[\\PC]{0,20}", number: i64, flag: bool) {
        let input = json!({ "v": { "text": text, "list": [number, flag, null], "deep": { "k": number } } });
        proptest::prop_assert_eq!(render("{{ input.v }}", &input), Ok(input["v"].clone()));
    }
}
