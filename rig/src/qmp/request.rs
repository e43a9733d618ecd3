//! What a client asks, from JSON.

use serde_json::{Map, Value};

use super::wire::Error;

/// One request.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) command: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) id: Option<Value>,
}

/// A request that can't be understood, with the `id` that its answer must bear.
#[derive(Debug, PartialEq)]
pub(super) struct BadRequest {
    pub(super) id: Option<Value>,
    pub(super) error: Error,
}

impl BadRequest {
    fn without_id(desc: impl Into<String>) -> Self {
        Self {
            id: None,
            error: Error::generic(desc),
        }
    }
}

impl Request {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BadRequest> {
        let value = serde_json::from_slice(bytes).map_err(|error| {
            let bad = format!("invalid JSON: {error}");
            BadRequest::without_id(bad)
        })?;
        let Value::Object(mut members) = value else {
            return Err(BadRequest::without_id(
                "a request is a JSON object, such as {\"execute\": \"query-commands\"}",
            ));
        };
        let id = members.remove("id");
        match Self::of(members) {
            Ok((command, arguments)) => Ok(Self { command, arguments, id }),
            Err(error) => Err(BadRequest { id, error }),
        }
    }

    fn of(mut members: Map<String, Value>) -> Result<(String, Map<String, Value>), Error> {
        let command = members.remove("execute");
        let arguments = members.remove("arguments");
        if let Some(name) = members.keys().next() {
            return Err(Error::generic(format!(
                "a request has no member '{name}': it has execute, arguments and id"
            )));
        }
        let command = match command {
            Some(Value::String(command)) => command,
            Some(_) => {
                return Err(Error::generic(
                    "member 'execute' must be a string, the name of a command",
                ));
            }
            None => {
                return Err(Error::generic(
                    "a request needs a member 'execute', the name of a command",
                ));
            }
        };
        match arguments {
            None => Ok((command, Map::new())),
            Some(Value::Object(arguments)) => Ok((command, arguments)),
            Some(_) => Err(Error::generic("member 'arguments' must be an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_a_command_its_arguments_and_an_id_of_any_kind() {
        let request = Request::parse(br#"{"execute": "quit", "id": {"a": [1, null]}}"#).expect("valid");
        assert_eq!(request.command, "quit");
        assert!(request.arguments.is_empty());
        assert_eq!(request.id, Some(json!({"a": [1, null]})));
    }

    #[test]
    fn what_is_wrong_is_named_and_the_id_kept() {
        for (text, words) in [
            ("5", "a JSON object"),
            ("null", "a JSON object"),
            ("[1]", "a JSON object"),
            ("{", "invalid JSON"),
            ("{'execute': 'quit'}", "invalid JSON"),
            (r#"{"execute": "quit", "foo": 1}"#, "no member 'foo'"),
            (r#"{"exec-oob": "quit"}"#, "no member 'exec-oob'"),
            (r#"{"execute": 1}"#, "'execute' must be a string"),
            (r#"{"arguments": {}}"#, "needs a member 'execute'"),
            (r#"{"execute": "quit", "arguments": 5}"#, "must be an object"),
        ] {
            let bad = Request::parse(text.as_bytes()).expect_err(text);
            assert!(bad.error.desc.contains(words), "{text}: {}", bad.error);
        }
        let bad = Request::parse(br#"{"id": 5}"#).expect_err("no command");
        assert_eq!(bad.id, Some(json!(5)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes: Vec<u8>) {
            let _ = Request::parse(&bytes);
        }
    }
}
