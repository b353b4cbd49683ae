//! Requests that two servers may read differently (RFC 9112, section 11.2): each is read in one way or refused, and a
//! refusal ends the connection.

use super::{curl, daemon, exchange};
use crate::harness::TestDaemon;

const CODE: &str = r#"
const paths = [];
export default async (req) => {
    const url = new URL(req.url);
    if (url.pathname === "/paths") return Response.json(paths);
    paths.push(url.pathname);
    return new Response("ok " + (await req.text()).length);
};"#;

/// A request hidden in the body of another.
const HIDDEN: &str = "GET /functions/f/hidden HTTP/1.1\r\nhost: x\r\n\r\n";

async fn paths(daemon: &TestDaemon) -> String {
    curl(daemon, &[], "/functions/f/paths").await.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_in_two_ways_is_refused() {
    let daemon = daemon().await;
    daemon.deploy_text("f", CODE).await;
    let post = "POST /functions/f/shown HTTP/1.1\r\n";
    let body = format!("0\r\n\r\n{HIDDEN}");
    let length = body.len();
    let cases = [
        ("6.3: two lengths", format!("{post}host: x\r\ncontent-length: {length}\r\ncontent-length: 5\r\n\r\n{body}")),
        ("6.3: two lengths in one", format!("{post}host: x\r\ncontent-length: {length}, 5\r\n\r\n{body}")),
        ("6.3: a sign", format!("{post}host: x\r\ncontent-length: +{length}\r\n\r\n{body}")),
        ("6.3: a hexadecimal length", format!("{post}host: x\r\ncontent-length: 0x5\r\n\r\n{body}")),
        (
            "6.1: chunked is not the last",
            format!("{post}host: x\r\ntransfer-encoding: chunked, identity\r\n\r\n{body}"),
        ),
        ("6.1: a coding before chunked", chunked(&body).replace("chunked", "gzip, chunked")),
        ("6.1: the same in two lines", chunked(&body).replace(": chunked", ": gzip\r\ntransfer-encoding: chunked")),
        ("6.1: an unknown coding", format!("{post}host: x\r\ntransfer-encoding: xchunked\r\n\r\n{body}")),
        ("6.1: chunked in HTTP/1.0", format!("POST /functions/f HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n{body}")),
        ("5.1: a blank before the colon", format!("{post}host: x\r\ncontent-length : {length}\r\n\r\n{body}")),
        ("5.1: a blank before the colon", format!("{post}host: x\r\ntransfer-encoding : chunked\r\n\r\n{body}")),
        ("5.2: a folded line", format!("{post}host: x\r\nx: a\r\n transfer-encoding: chunked\r\n\r\n{body}")),
        ("2.2: a carriage return alone", format!("{post}host: x\r\nx: a\rtransfer-encoding: chunked\r\n\r\n{body}")),
        ("2.2: a blank before the first header", format!("{post} host: x\r\n\r\n{body}")),
        ("RFC 9110, 5.5: a zero byte", format!("{post}host: x\r\nx: a\0b\r\n\r\n{body}")),
        ("3.2: no host", format!("{post}\r\n{body}")),
        ("3.2: two hosts", format!("{post}host: x\r\nhost: f.localhost\r\n\r\n{body}")),
        ("3: two blanks", format!("POST  /functions/f HTTP/1.1\r\nhost: x\r\n\r\n{body}")),
        ("7.1: a chunk's size with a sign", chunked(&format!("+5\r\nhello\r\n{body}"))),
        ("7.1: a chunk's size that is none", chunked(&format!("0x5\r\nhello\r\n{body}"))),
        ("7.1: a chunk's size with a blank before", chunked(&format!(" 5\r\nhello\r\n{body}"))),
        ("7.1: a chunk longer than its size", chunked(&format!("3\r\nhello\r\n{body}"))),
        ("7.1: a chunk's size over 64 bits", chunked(&format!("10000000000000005\r\nhello\r\n{body}"))),
        ("7.1.1: a line break inside an extension", chunked(&format!("5;a\nb\r\nhello\r\n{body}"))),
    ];
    for (rule, request) in cases {
        // The daemon closes the connection, which ends the exchange.
        let answer = exchange(daemon.http(), request.as_bytes()).await;
        assert!(answer.matches("HTTP/1.").count() <= 1 && !answer.contains(" 200 "), "{rule}: {answer:?}");
        assert!(!paths(&daemon).await.contains("hidden"), "{rule}");
    }
    daemon.stop().await;
}

fn chunked(body: &str) -> String {
    format!("POST /functions/f/shown HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{body}")
}

/// Section 6.1: the coding overrides the length, and the connection ends after the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_ends_the_connection() {
    let daemon = daemon().await;
    daemon.deploy_text("f", CODE).await;
    let body = format!("5\r\nhello\r\n0\r\n\r\n{HIDDEN}");
    let length = format!("content-length: {}\r\n", body.len());
    let coding = "transfer-encoding: chunked\r\n";
    for headers in [format!("{length}{coding}"), format!("{coding}{length}")] {
        let request = format!("POST /functions/f/shown HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}");
        let answer = exchange(daemon.http(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok 5"), "{answer:?}");
        assert!(answer.contains("connection: close"), "{answer:?}");
    }
    assert_eq!(paths(&daemon).await, r#"["/shown","/shown"]"#);
    daemon.stop().await;
}

/// Unusual requests with a single meaning are served.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_unusual_and_clear_is_served() {
    let daemon = daemon().await;
    daemon.deploy_text("f", CODE).await;
    let close = "host: x\r\nconnection: close\r\n";
    let post = format!("POST /functions/f HTTP/1.1\r\n{close}");
    let cases = [
        ("6.3: the same length twice", format!("{post}content-length: 5\r\ncontent-length: 5\r\n\r\nhello")),
        (
            "7.1.1: extensions of chunks",
            format!("{post}transfer-encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n"),
        ),
        ("7.1.2: trailers", format!("{post}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n")),
        ("2.2: an empty line before the request", format!("\r\n{post}content-length: 5\r\n\r\nhello")),
        (
            "2.2: lines that end with a line feed alone",
            format!("{post}content-length: 5\r\n\r\nhello").replace("\r\n", "\n"),
        ),
        ("7: the coding in capitals", format!("{post}transfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
        // Section 3.2.2: the host of the target overrides the header.
        (
            "3.2.2: a whole address",
            format!("POST http://f.localhost/ HTTP/1.1\r\n{close}content-length: 5\r\n\r\nhello"),
        ),
    ];
    for (rule, request) in cases {
        let answer = exchange(daemon.http(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok 5"), "{rule}: {answer:?}");
    }
    daemon.stop().await;
}
