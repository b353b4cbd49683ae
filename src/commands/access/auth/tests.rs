//! Tests of tokens: which ones are accepted, what they allow, and what a refusal says.

use super::super::rate_limit::TRIES_MAX;
use super::*;
use crate::{
    model::{Function, FunctionStatus, Settings, token::SECRET_BYTES},
    protocol::message::{InvokeRequest, ListRequest, LogsRequest, StatusRequest, UpdateRequest},
    router::{Entry, Versions},
};
use proptest::prelude::*;
use std::time::Duration;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millis(milliseconds)
}

fn secret(byte: u8) -> TokenSecret {
    TokenSecret::new([byte; SECRET_BYTES])
}

fn token(byte: u8, scopes: &[Scope]) -> Token {
    Token {
        id: TokenId::new(),
        name: format!("token-{byte}").parse().expect("a name"),
        hash: secret(byte).hash(),
        scopes: scopes.to_vec(),
        function: None,
        actor: "uid:0".into(),
        created_at: at(0),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
    }
}

fn function(name: &str) -> Entry {
    let function = Function {
        id: FunctionId::new(),
        name: name.parse().expect("a name"),
        runtime: "bun".into(),
        handler: "default".into(),
        status: FunctionStatus::Registered,
        settings: Settings::default(),
        created_at: at(0),
        updated_at: at(0),
    };
    Entry { function, versions: Versions::default(), aliases: Vec::new(), approved: None }
}

fn invoke(name: &str) -> Request {
    Request::Invoke(InvokeRequest { function_id: name.into(), ..InvokeRequest::default() })
}

fn code<T>(outcome: Result<T, Error>) -> Option<ErrorCode> {
    outcome.err().map(|it| it.code)
}

const REFUSED: Option<ErrorCode> = Some(ErrorCode::Unauthorized);
const FORBIDDEN: Option<ErrorCode> = Some(ErrorCode::Forbidden);

#[test]
fn only_the_whole_secret_of_a_valid_token_is_accepted() {
    let authority = Authority::new(vec![token(1, &[Scope::Read])]);
    let secret = secret(1);
    let text = secret.reveal();
    assert_eq!(code(authority.check(text, at(1))), None);
    for wrong in ["", "lvn_", &text[..text.len() - 1], &format!("{text}A"), &text[4..], &text.to_lowercase()] {
        assert_eq!(code(authority.check(wrong, at(1))), REFUSED, "{wrong}");
    }
}

#[test]
fn expiry_counts_from_its_millisecond_on() {
    let expiring = Token { expires_at: Some(at(1_000)), ..token(1, &[Scope::Read]) };
    let authority = Authority::new(vec![expiring]);
    assert_eq!(code(authority.check(secret(1).reveal(), at(999))), None);
    assert_eq!(code(authority.check(secret(1).reveal(), at(1_000))), REFUSED);
}

#[test]
fn what_is_created_or_revoked_counts_at_once() {
    let authority = Authority::new(Vec::new());
    assert_eq!(code(authority.check(secret(1).reveal(), at(0))), REFUSED);
    let made = authority.put(token(1, &[Scope::Read]));
    assert_eq!(code(authority.check(secret(1).reveal(), at(5))), None);
    authority.put(Token { revoked_at: Some(at(6)), ..Token::clone(&made.token) });
    assert_eq!(code(authority.check(secret(1).reveal(), at(6))), REFUSED);
    assert_eq!(authority.all()[0].last_used_at(), Some(at(5)), "its uses are still known");
}

#[test]
fn one_answer_for_every_reason() {
    let expired = Token { expires_at: Some(at(1)), ..token(1, &[Scope::Read]) };
    let revoked = Token { revoked_at: Some(at(1)), ..token(2, &[Scope::Read]) };
    let authority = Authority::new(vec![expired, revoked]);
    let answer = |byte| authority.check(secret(byte).reveal(), at(9)).expect_err("it is not valid");
    assert_eq!((answer(1), answer(2)), (answer(3), answer(3)));
    assert!(!answer(1).message.contains("lvn_"));
}

#[test]
fn a_token_allows_what_its_scopes_say_and_the_refusal_names_the_one_that_is_needed() {
    let router = Router::new(vec![function("hello")]);
    let authority =
        Authority::new(vec![token(1, &[Scope::Deploy]), token(2, &[Scope::Invoke]), token(3, &[Scope::Admin])]);
    let allows = |byte, request: &Request| authority.check(secret(byte).reveal(), at(0))?.allows(request, &router);
    let list = Request::List(ListRequest::default());
    let update = Request::Update(UpdateRequest { function_id: "hello".into(), ..UpdateRequest::default() });
    assert_eq!([1, 2, 3].map(|it| code(allows(it, &list))), [None, FORBIDDEN, None]);
    assert_eq!([1, 2, 3].map(|it| code(allows(it, &invoke("hello")))), [FORBIDDEN, None, None]);
    assert_eq!([1, 2, 3].map(|it| code(allows(it, &update))), [FORBIDDEN, FORBIDDEN, None]);
    let error = allows(2, &update).expect_err("it is for calls");
    assert!(error.message.contains("UPDATE_FUNCTION") && error.message.contains("`admin`"), "{error}");
    assert_eq!(error.details, Some(json!({ "needed": "admin", "scopes": ["invoke"] })));
}

#[test]
fn a_token_for_one_function_is_for_that_one_alone() {
    let (hello, other) = (function("hello"), function("other"));
    let (own, foreign) = (hello.function.id, other.function.id);
    let router = Router::new(vec![hello, other]);
    let restricted = Token { function: Some(own), ..token(1, &[Scope::Admin]) };
    let authority = Authority::new(vec![restricted]);
    let grant = authority.check(secret(1).reveal(), at(0)).expect("it is valid");
    for name in ["hello", "hello:v1", &own.to_string(), &format!("{own}:LIVE")] {
        assert_eq!(code(grant.allows(&invoke(name), &router)), None, "{name}");
        let logs = Request::GetLogs(LogsRequest { function_id: name.into(), ..LogsRequest::default() });
        assert_eq!(code(grant.allows(&logs, &router)), None, "{name}");
    }
    for name in ["other", "other:hello", &foreign.to_string(), "nothing", "", "hell", "hello2"] {
        assert_eq!(code(grant.allows(&invoke(name), &router)), FORBIDDEN, "{name}");
    }
    for request in [Request::List(ListRequest::default()), Request::Status(StatusRequest {})] {
        assert_eq!(code(grant.allows(&request, &router)), FORBIDDEN, "{request:?}");
    }
    assert_eq!((code(grant.may_invoke(own)), code(grant.may_invoke(foreign))), (None, FORBIDDEN));
    // The function is deleted, and another one gets its name.
    router.remove(own);
    router.put(function("hello"));
    assert_eq!(code(grant.allows(&invoke("hello"), &router)), FORBIDDEN);
}

#[test]
fn too_many_wrong_tokens_are_told_so_and_a_valid_one_is_served_still() {
    let authority = Authority::new(vec![token(1, &[Scope::Read])]);
    let (peer, now) = (IpAddr::from([192, 0, 2, 1]), (at(0), Instant::now()));
    for _ in 0..TRIES_MAX {
        assert_eq!(code(authority.check_from(peer, "lvn_wrong", now)), REFUSED);
    }
    let error = authority.check_from(peer, "lvn_wrong", now).expect_err("it is wrong");
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert_eq!(error.details, Some(json!({ "retry_after_ms": 60_000 })));
    assert_eq!(code(authority.check_from(peer, secret(1).reveal(), now)), None);
    let later = (at(0), now.1 + Duration::from_secs(60));
    assert_eq!(code(authority.check_from(peer, "lvn_wrong", later)), REFUSED);
}

#[test]
fn a_use_is_written_once() {
    let authority = Authority::new(vec![token(1, &[Scope::Read]), token(2, &[Scope::Read])]);
    assert_eq!(authority.unwritten(), []);
    for time in [3, 7, 5] {
        authority.check(secret(1).reveal(), at(time)).expect("it is valid");
    }
    let uses = authority.unwritten();
    assert_eq!(uses.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [at(7)]);
    // A use during a write is written the next time.
    authority.check(secret(1).reveal(), at(8)).expect("it is valid");
    authority.written(&uses);
    let uses = authority.unwritten();
    authority.written(&uses);
    assert_eq!((uses[0].1, authority.unwritten()), (at(8), Vec::new()));
}

#[test]
fn debugging_shows_no_secret_and_no_hash() {
    let authority = Authority::new(vec![token(1, &[Scope::Read])]);
    let shown = format!("{authority:?}");
    assert!(shown.contains("token-1") && !shown.contains("lvn_"), "{shown}");
    let hash = &secret(1).hash()[..4];
    assert!(!shown.contains(&format!("{}, {}, {}", hash[0], hash[1], hash[2])), "{shown}");
}

/// One step with one of a few tokens.
#[derive(Debug, Clone)]
enum Act {
    Make { token: u8, lives: Option<i64> },
    Revoke { token: u8 },
    Use { token: u8 },
    Write,
}

fn act() -> impl Strategy<Value = Act> {
    let token = 0_u8..6;
    prop_oneof![
        1 => (token.clone(), proptest::option::of(1_i64..50)).prop_map(|(token, lives)| Act::Make { token, lives }),
        1 => token.clone().prop_map(|token| Act::Revoke { token }),
        3 => token.prop_map(|token| Act::Use { token }),
        1 => Just(Act::Write),
    ]
}

proptest! {
    /// Compares the authority with a model that only remembers.
    #[test]
    fn a_token_is_accepted_from_when_it_is_made_until_it_ends(
        acts in proptest::collection::vec((act(), 0_i64..20), 1..80),
    ) {
        let authority = Authority::new(Vec::new());
        let mut now = 0;
        let mut ends: HashMap<u8, (i64, Option<i64>)> = HashMap::new();
        for (act, pause) in acts {
            now += pause;
            match act {
                Act::Make { token: byte, lives } if !ends.contains_key(&byte) => {
                    let expires_at = lives.map(|it| at(now + it));
                    authority.put(Token { expires_at, ..token(byte, &[Scope::Read]) });
                    ends.insert(byte, (lives.map_or(i64::MAX, |it| now + it), None));
                }
                Act::Make { .. } => {}
                Act::Revoke { token } => {
                    if let Some((end, _)) = ends.get_mut(&token) {
                        let known = authority.all().into_iter().find(|it| it.token.hash == secret(token).hash());
                        let revoked = Token::clone(&known.expect("it was made").token);
                        authority.put(Token { revoked_at: Some(at(now)), ..revoked });
                        *end = (*end).min(now);
                    }
                }
                Act::Use { token } => {
                    let accepted = authority.check(secret(token).reveal(), at(now)).is_ok();
                    let expected = ends.get(&token).is_some_and(|(end, _)| now < *end);
                    prop_assert_eq!(accepted, expected);
                    if let Some((_, used)) = ends.get_mut(&token).filter(|_| accepted) {
                        *used = Some(now);
                    }
                }
                Act::Write => {
                    let uses = authority.unwritten();
                    authority.written(&uses);
                    prop_assert_eq!(authority.unwritten(), Vec::new());
                }
            }
        }
        for known in authority.all() {
            let used = ends.iter().find(|(byte, _)| secret(**byte).hash() == known.token.hash).and_then(|it| it.1.1);
            prop_assert_eq!(known.last_used_at(), used.map(at));
        }
    }
}
