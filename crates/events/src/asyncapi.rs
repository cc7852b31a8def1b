//! The description of all this for others: AsyncAPI. A test holds it to the code, in both directions.

/// `asyncapi.yaml`, as it stands at the repository's top. The schemas that it refers to are `schemas/..` beside it.
pub const DOCUMENT: &str = include_str!("../../../asyncapi.yaml");
/// Its media type (RFC 9512).
pub const MEDIA_TYPE: &str = "application/yaml";
