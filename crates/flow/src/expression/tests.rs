use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::decide::Env;

fn evaluate_with<T>(input: &Value, evaluate: impl FnOnce(&Evaluation<'_>) -> T) -> T {
    let vars = [("A", "https://a.example"), ("BAD", "a.example"), ("SLASH", "http://a.example/base/")];
    let vars: BTreeMap<String, String> = vars.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let env = Env { vars, ..Env::default() };
    evaluate(&Evaluation::new(Scope { input, slip: None, step: None, env: Some(&env), more: &[] }))
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
fn a_number_that_json_cannot_hold_is_an_error() {
    let input = json!({ "large": 1e300, "zero": 0.0 });
    for text in
        ["{{ input.large * input.large }}", "{{ -input.large * input.large }}", "n: {{ input.large * input.large }}"]
    {
        let error = render(text, &input).unwrap_err();
        assert!(error.contains("no finite number"), "{text}: {error}");
    }
    assert_eq!(render("{{ input.large }}", &input), Ok(json!(1e300)));
}

/// JSON as it was written.
fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_number_that_is_only_passed_on_stays_as_it_was_written() {
    for number in [
        "123456789012345678901234567890",
        "-100000000000000000001",
        "1.10",
        "1.0",
        "-0",
        "1e+400",
        "0.10000000000000000555",
        "340282366920938463463374607431768211456",
        "9007199254740993.0",
    ] {
        let input = json_of(&format!(r#"{{"v":{number},"list":[{number}],"deep":{{"v":{number}}},"n":1}}"#));
        for text in [
            "{{ input.v }}",
            "{{ input.list[0] }}",
            "{{ input.list | first }}",
            "{{ input.deep.v | default(1) }}",
            "{{ input.nothing | default(input.v) }}",
            "{{ input.v if input.n > 0 else input.n }}",
            "{{ input.nothing | default(0) or input.v }}",
        ] {
            assert_eq!(render(text, &input).unwrap().to_string(), number, "{text}");
        }
        assert_eq!(render("{{ input }}", &input).unwrap().to_string(), input.to_string());
        assert_eq!(
            render("{{ [input.v, {'a': input.list}] }}", &input).unwrap().to_string(),
            format!(r#"[{number},{{"a":[{number}]}}]"#)
        );
        assert_eq!(
            render("n: {{ input.v }}, {{ 'x' ~ input.v }}", &input),
            Ok(json!(format!("n: {number}, x{number}")))
        );
        assert_eq!(render("{{ input.list | tojson }}", &input), Ok(json!(format!("[{number}]"))));
        assert_eq!(render("{{ input.v is number }}", &input), Ok(json!(true)));
    }
    assert_eq!(render("{{ 'a' if input.v else 'b' }}", &json_of(r#"{"v":0.0}"#)), Ok(json!("b")));
}

#[test]
fn a_number_that_is_computed_with_is_exact_or_an_error() {
    let input = json_of(
        r#"{"big":123456789012345678901234567890,"price":1.10,"one":1.0,"huge":1e400,
            "larger":340282366920938463463374607431768211456,"digits":0.10000000000000000555,"odd":9007199254740993,
            "list":[3,1.5,2.0]}"#,
    );
    for (text, value) in [
        ("{{ input.big + 1 }}", "123456789012345678901234567891"),
        ("{{ input.big - input.big }}", "0"),
        ("{{ input.price * 2 }}", "2.2"),
        ("{{ 10 - 2 - 3 * 2 ** 2 // 5 % 4 }}", "6"),
        ("{{ -input.price }}", "-1.1"),
        ("{{ input.price > 1 and input.one == 1 and 1.1 == input.price }}", "true"),
        ("{{ input.big > 5 < 7 }}", "true"),
        ("{{ input.price in [1.1, 2] and input.price not in input.list }}", "true"),
        ("{{ input.list | sum }}", "6.5"),
        ("{{ input.list | sort | last }}", "3"),
        ("{{ input.list | max }}", "3"),
        ("{{ input.price | round }}", "1.0"),
        ("{{ input.odd + 2 }}", "9007199254740995"),
        ("{{ input.odd is odd }}", "true"),
        ("{{ input.list[0 + 1] }}", "1.5"),
    ] {
        assert_eq!(render(text, &input).unwrap().to_string(), value, "{text}");
    }
    for (text, named) in [
        ("{{ input.huge + 1 }}", "`input.huge` is a number that no computation"),
        ("{{ input.larger * 1 }}", "`input.larger` is a number"),
        ("{{ -input.larger }}", "`input.larger` is a number"),
        ("{{ input.digits > 0 }}", "`input.digits` is a number"),
        ("{{ input.huge | round }}", "`input.huge` is a number"),
        ("{{ input.huge is lt 5 }}", "`input.huge` is a number"),
        ("{{ [input.huge] | max }}", "`input.huge` is a number"),
        ("{{ input.big * input.big }}", "unable to calculate"),
        ("{{ input.odd / 2 }}", "too many digits"),
        ("{{ input.odd * 1.5 }}", "too many digits"),
    ] {
        let error = render(text, &input).map(|value| panic!("{text} gave {value}")).unwrap_err();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn unlike_kinds_are_not_compared() {
    let input =
        json!({ "t": "50", "n": 50, "b": true, "z": null, "l": [1, 2], "m": { "a": 1 }, "f": 1.5, "mixed": [1, "a"] });
    for (text, named) in [
        ("{{ input.t > 1000 }}", "a text cannot be compared with a number"),
        ("{{ 1000 <= input.t }}", "a number cannot be compared with a text"),
        ("{{ input.t == 50 }}", "a text cannot be compared with a number"),
        ("{{ input.n != '50' }}", "a number cannot be compared with a text"),
        ("{{ input.b > 0 }}", "a boolean cannot be compared with a number"),
        ("{{ input.z < 1 }}", "null cannot be compared with a number"),
        ("{{ input.l == input.m }}", "a list cannot be compared with a mapping"),
        ("{{ input.f < 2 < input.t }}", "a number cannot be compared with a text"),
        ("{{ not (input.n == 'a') }}", "a number cannot be compared with a text"),
        ("{{ input.t in input.l }}", "a text cannot be compared with a number"),
        ("{{ input.n in input.t }}", "a number cannot be looked for in a text"),
        ("{{ input.t is eq 50 }}", "a text cannot be compared with a number"),
        ("{{ input.l | select('gt', '1') | list }}", "a number cannot be compared with a text"),
        ("{{ input.mixed | sort }}", "a number cannot be compared with a text"),
        ("{{ input.mixed | max }}", "a number cannot be compared with a text"),
        ("{{ 'yes' if input.t > 7 else 'no' }}", "a text cannot be compared with a number"),
    ] {
        let error = render(text, &input).map(|value| panic!("{text} gave {value}")).unwrap_err();
        assert!(error.contains(named), "{text}: {error}");
    }
    for (text, value) in [
        ("{{ input.z == none and input.n != none and none == input.z }}", true),
        ("{{ input.t > '4' and input.n >= 50.0 and input.f != 2 }}", true),
        ("{{ input.l == [1, 2.0] and input.m == {'a': 1} }}", true),
        ("{{ 'b' in input.mixed or 'a' in input.m and '5' in input.t }}", true),
        ("{{ input.z in input.l or 3 in [] }}", false),
        ("{{ 1 < input.f <= 1.5 == 1.5 }}", true),
        ("{{ input.x is defined and input.x > 5 }}", false),
    ] {
        assert_eq!(render(text, &input), Ok(json!(value)), "{text}");
    }
}

#[test]
fn every_form_of_an_expression_keeps_its_meaning() {
    let input = json!({ "a": 7, "b": 3, "t": "x", "l": [1, 2, 3, 4], "m": { "k": { "0": "z" } }, "n": [[5]] });
    for (text, value) in [
        ("{{ input.a - input.b - 1 }}", json!(3)),
        ("{{ (input.a + input.b) * 2 }}", json!(20)),
        ("{{ input.b * 2 ~ 'x' ~ 1 }}", json!("6x1")),
        ("{{ 'a' 'b' ~ \"c\\\"\" }}", json!("abc\"")),
        ("{{ not input.a == 7 or input.b }}", json!(3)),
        ("{{ -input.a + 1 }}", json!(-6)),
        ("{{ -2 ** 2 }}", json!(4)),
        ("{{ 7.5e0 + 0x10 + 1_000 }}", json!(1023.5)),
        ("{{ input.l[1:3] }}", json!([2, 3])),
        ("{{ input.l[::-1] }}", json!([4, 3, 2, 1])),
        ("{{ input.l[-1] + input.l[input.b - 1] }}", json!(7)),
        ("{{ input.n.0.0 }}", json!(5)),
        ("{{ input['m']['k']['0'] }}", json!("z")),
        ("{{ {'a': 1, input.t: [1, 2,],} }}", json!({ "a": 1, "x": [1, 2] })),
        ("{{ (1, 2) }}", json!([1, 2])),
        ("{{ range(input.b) | list }}", json!([0, 1, 2])),
        ("{{ dict(a=input.a, b=1 + 1).b }}", json!(2)),
        ("{{ input.l | map('string') | join('-') }}", json!("1-2-3-4")),
        ("{{ input.l | batch(2) | list | length }}", json!(2)),
        ("{{ input.a is divisibleby 7 and input.t is not number }}", json!(true)),
        ("{{ (input.a is not odd) if (input.b is even) else input.t is string }}", json!(true)),
        ("{{ 'a' if input.a > 9 else 'b' if input.a > 8 else 'c' }}", json!("c")),
        ("{{ input.l | selectattr('x', 'undefined') | list | length }}", json!(4)),
        ("{{ (input.m.k | default({})).x | default('none') | upper }}", json!("NONE")),
        ("{{ input.l | sort(reverse=true) | first }}", json!(4)),
        ("{{ input.a not in input.l }}", json!(true)),
        ("{{ input.t is in ['x', 'y'] }}", json!(true)),
    ] {
        assert_eq!(render(text, &input), Ok(value), "{text}");
    }
    let long = vec!["input.a"; 400].join(" + ");
    assert_eq!(render(&format!("{{{{ {long} }}}}"), &input), Ok(json!(2800)));
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

#[test]
fn no_filter_makes_more_of_its_input_than_a_record_could_carry() {
    let large = "x\n".repeat(50_000);
    let input = json!({ "t": large, "list": [large, large], "n": 1_000_000_000_000_u64, "f": "%(a)s".repeat(50_000) });
    for (text, bound) in [
        ("{{ input.t | join(input.t) }}", "1048576 bytes"),
        ("{{ [input.list] * 40 | join(', ') }}", ""),
        ("{{ [1] | batch(9000, input.t) | first | join }}", "1048576 bytes"),
        ("{{ input.t | replace('x', input.t) }}", "1048576 bytes"),
        ("{{ input.t | indent(input.n) }}", "1048576 bytes"),
        ("{{ input.t | indent(width=input.n) }}", "1048576 bytes"),
        ("{{ 'a' | indent(width=input.n) }}", "1048576 bytes"),
        ("{{ input.f | format(a=input.t) }}", "1048576 bytes"),
        ("{{ '%999999999999d' | format(1) }}", "1048576 bytes"),
        ("{{ '%*d' | format(input.n, 1) }}", "1048576 bytes"),
        ("{{ input.list | slice(input.n) }}", "10000 items"),
        ("{{ input.list | batch(input.n, 'x') }}", "10000 items"),
        ("{{ input.t * input.n }}", ""),
        ("{{ 'x' * 2000000 }}", "1048576 bytes"),
        (&format!("{{{{ input.t {} }}}}", "| tojson".repeat(60)), "1048576 bytes"),
        (&format!("{{{{ input.t {} }}}}", "| pprint".repeat(60)), "1048576 bytes"),
    ] {
        let refused = render(text, &input).map(|value| value.to_string().len()).unwrap_err();
        assert!(refused.contains(bound), "{text:.60}: {refused:.300}");
    }
    let input = json!({ "t": "a b", "list": ["x", 1, { "k": 2 }] });
    for (text, expected) in [
        ("{{ input.t | join('-') | replace(' ', '_') | indent(2, first=true) }}", json!("  a-_-b")),
        ("{{ input.list | map('default') | join(', ') }}", json!("x, 1, {'k': 2}")),
        ("{{ [{'k': 1}, {'k': 2}] | join('+', attribute='k') }}", json!("1+2")),
        ("{{ '%05d %(a)s' | format(a=1) if false else '%s: %3d' | format('n', 7) }}", json!("n:   7")),
        ("{{ [1, 2, 3] | batch(2, 0) }}", json!([[1, 2], [3, 0]])),
        ("{{ 'ab' * 3 }}", json!("ababab")),
    ] {
        assert_eq!(render(text, &input), Ok(expected), "{text}");
    }
}

proptest::proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn a_damaged_template_is_rendered_or_refused(text in fuzz::damaged_text(&[
        "{{ input.v }}",
        "a {{ input.v | default('x') | upper }} b {{ input.list | map(attribute='k') | join(', ') }}",
        "{{ input.n + 1 > 2 and not input.b or input.list[0].k == 'x' }}",
        "{% for x in input.list %}{{ x.k ~ loop.index }}{% if x.k is defined %},{% endif %}{% endfor %}",
    ])) {
        let input = json!({ "v": "x", "n": 1e15, "b": true, "list": [{ "k": 1 }, { "k": "\u{202e}" }] });
        let _ = render(&text, &input);
        let _ = url(&format!("{{{{ env.A }}}}/{text}"), &input);
    }

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
