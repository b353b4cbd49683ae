//! Output of functions: a secret in it is masked before the output is stored or shown.

use super::secret;
use crate::harness::{TestDaemon, get};
use levain::{error::ErrorCode, protocol::message::InvokeRequest};

const VALUE: &str = "hunter22/with?some+odd \"characters\"";

/// Writes the secret in the way selected by the path. Parts of a split secret have a pause between them, so that each
/// is read by itself.
const WRITER: &str = "const key = process.env.KEY;
    export default async (req) => {
        switch (new URL(req.url).pathname.slice(1)) {
            case 'log': console.log('log', key, { key }); break;
            case 'error': console.error(new Error(`error ${key}`)); break;
            case 'stdout': process.stdout.write(`stdout ${key}\\n`); break;
            case 'stderr': process.stderr.write(`stderr ${key}\\n`); break;
            case 'two': {
                process.stdout.write('two ' + key.slice(0, 9));
                await Bun.sleep(100);
                process.stdout.write(key.slice(9) + ' end\\n');
                break;
            }
            case 'base64': console.log('base64', Buffer.from(`user:${key}`).toString('base64')); break;
            case 'url': console.log('url', encodeURIComponent(key)); break;
            case 'cut': console.log('cut' + 'x'.repeat(16_384 - 30) + key + 'y'.repeat(100)); break;
            case 'long': process.stdout.write('long' + 'x'.repeat(16_384 - 12) + key + 'y'.repeat(100) + '\\n'); break;
            case 'rejection': Promise.reject(new Error(`rejection ${key}`)); await Bun.sleep(10); break;
            case 'throw': throw new TypeError(`throw ${key}`);
            case 'exit': process.stderr.write(`exit ${key}\\n`); await Bun.sleep(50); process.exit(1);
        }
        return new Response('ok');
    };";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_function_writes() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    daemon.call(&secret(Some("f"), None, &[("KEY", VALUE), ("SHORT", "abc")])).await.unwrap();
    daemon.redeploy_text("f", None, WRITER).await.unwrap();
    let ways = ["log", "error", "stdout", "stderr", "two", "base64", "url", "cut", "long", "rejection"];
    for way in ways {
        daemon.get("f", &format!("/{way}")).await;
        let line = daemon.until_logged("f", way).await.message;
        assert!(line.contains("[secret KEY]"), "{way}: {line}");
    }
    let thrown = daemon.invoke_with(get("f", "/throw")).await.unwrap();
    assert_eq!(thrown.code, Some(ErrorCode::HandlerError));
    assert!(thrown.error.as_ref().unwrap().contains("TypeError: throw [secret KEY]"), "{thrown:?}");
    let exited = daemon.invoke_with(get("f", "/exit")).await.unwrap();
    assert_eq!(exited.code, Some(ErrorCode::WorkerCrashed));
    let mut all = format!("{thrown:?} {exited:?}");
    for line in daemon.logs("f").await {
        all.push_str(&line.message);
        all.push('\n');
    }
    assert!(!all.contains("hunter22") && !all.contains("aHVudGVy") && !all.contains("odunter"), "{all}");
    assert!(!all.contains("hunt"), "no part of the secret is left: {all}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_at_import_tells_no_secret() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    daemon.call(&secret(Some("f"), None, &[("KEY", VALUE)])).await.unwrap();
    let code = "console.error('boot', process.env.KEY); throw new Error(`cannot use ${process.env.KEY}`);
        export default () => new Response('ok');";
    let error = daemon.redeploy_text("f", None, code).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BundleLoadError);
    let told = format!("{error:?}");
    assert!(told.contains("cannot use [secret KEY]") && !told.contains("hunter"), "{told}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_without_secrets_writes_what_it_likes() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("other", WRITER).await;
    daemon.deploy_text("f", "export default () => { console.log('hunter22'); return new Response('ok'); };").await;
    daemon.call(&secret(Some("other"), None, &[("KEY", "hunter22")])).await.unwrap();
    daemon.invoke_with(InvokeRequest { function_id: "f".into(), ..InvokeRequest::default() }).await.unwrap();
    assert_eq!(daemon.until_logged("f", "hunter").await.message, "hunter22");
    daemon.stop().await;
}
