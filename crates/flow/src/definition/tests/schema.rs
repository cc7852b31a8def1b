//! `schemas/flow.schema.json`, the published schema of flow files, says what the parser does.

use super::*;

#[test]
fn the_example_flow_is_valid_by_the_published_schema() {
    let language: Value = serde_json::from_str(LANGUAGE).unwrap();
    let validator = jsonschema::options().build(&language).unwrap();
    let document = parse(ORDER).unwrap().document().clone();
    let errors: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!validator.is_valid(&json!({ "flow": "x", "step": [] })));
}

#[test]
fn the_published_schema_names_the_keys_that_the_parser_knows() {
    let language: Value = serde_json::from_str(LANGUAGE).unwrap();
    let names = |pointer: &str| -> Vec<String> {
        language.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(names("/properties"), key::FLOW);
    assert_eq!(names("/$defs/route/properties"), key::ROUTE);
    assert_eq!(names("/$defs/route/properties/deprecation/properties"), key::DEPRECATION);
    assert_eq!(names("/$defs/on/properties"), key::ON);
    assert_eq!(names("/$defs/webhook/properties"), key::WEBHOOK);
    assert_eq!(names("/$defs/step/properties"), key::STEP);
    assert_eq!(names("/$defs/http/properties"), key::HTTP);
    assert_eq!(names("/$defs/respond/properties"), key::RESPOND);
    assert_eq!(names("/$defs/compensate/properties"), key::COMPENSATE);
    assert_eq!(names("/$defs/auth/properties"), key::AUTH);
    assert_eq!(names("/$defs/auth/properties/basic/properties"), key::AUTH_BASIC);
    assert_eq!(names("/$defs/auth/properties/oauth2/properties"), key::AUTH_OAUTH2);
    let ways = &language["$defs"]["auth"]["properties"]["oauth2"]["properties"]["client_auth"]["enum"];
    assert_eq!(*ways, json!(key::CLIENT_AUTH));
    assert_eq!(names("/$defs/retry/properties"), key::RETRY);
    assert_eq!(names("/$defs/verify/properties"), key::VERIFY);
    assert_eq!(names("/$defs/verify/properties/http/properties"), key::VERIFY_HTTP);
    let methods = &language["$defs"]["verify"]["properties"]["http"]["properties"]["method"]["enum"];
    assert_eq!(*methods, json!(key::VERIFY_METHODS));
    assert_eq!(names("/$defs/step/properties/sleep/oneOf/1/properties"), key::SLEEP);
    assert_eq!(names("/$defs/wait/properties"), key::WAIT);
    assert_eq!(names("/$defs/simulate/properties"), key::SIMULATE);
    assert_eq!(names("/$defs/fail/properties"), key::FAIL);
    assert_eq!(names("/$defs/wait/properties/approve/properties"), key::APPROVE);
    assert_eq!(language["$defs"]["http"]["properties"]["method"]["enum"], json!(key::METHODS));
    assert_eq!(language["properties"]["steps"]["maxItems"], json!(limit::STEPS_MAX));
}
