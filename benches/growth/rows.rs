//! The measurements: how a node grows, and the operation that should not notice.

use crate::{Result, node::Node};
use futures_util::future::LocalBoxFuture;
use levain::{
    model::DeploymentStatus,
    protocol::message::{
        DeploymentsRequest, InvokeRequest, ListRequest, LogsRequest, RollbackRequest, SetVariablesRequest,
        VariableInput,
    },
};

/// A step of a row.
type Step<'a> = LocalBoxFuture<'a, Result<()>>;

/// One measurement.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) grows_by: &'static str,
    pub(crate) short: &'static [u32],
    pub(crate) long: &'static [u32],
    /// Operations in one round.
    pub(crate) operations: u32,
    pub(crate) prepare: for<'a> fn(&'a Node) -> Step<'a>,
    /// Grows the node from one size to the next.
    pub(crate) grow: for<'a> fn(&'a Node, u32, u32) -> Step<'a>,
    pub(crate) operate: for<'a> fn(&'a Node) -> Step<'a>,
}

/// Function that the operations are about.
const NAME: &str = "measured";

/// Code of a version; versions with different numbers differ.
fn code(number: u32) -> String {
    format!("export default () => new Response(\"{number}\");")
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "register a function",
        grows_by: "functions",
        short: &[100, 1_000],
        long: &[100, 1_000, 10_000],
        operations: 20,
        prepare: two_versions,
        grow: functions,
        operate: |node| Box::pin(async move { node.register(&format!("new-{}", node.turn.get())).await }),
    },
    Row {
        name: "roll back",
        grows_by: "functions",
        short: &[100, 1_000],
        long: &[100, 1_000, 10_000],
        operations: 50,
        prepare: two_versions,
        grow: functions,
        operate: roll_back,
    },
    Row {
        name: "list all functions, by pages of 100",
        grows_by: "functions",
        short: &[100, 1_000],
        long: &[1_000, 3_000, 10_000],
        operations: 2,
        prepare: two_versions,
        grow: functions,
        operate: list_all,
    },
    Row {
        name: "roll back",
        grows_by: "versions of the function",
        short: &[10, 100],
        long: &[10, 100, 1_000],
        operations: 50,
        prepare: two_versions,
        grow: versions,
        operate: roll_back,
    },
    Row {
        name: "roll back",
        grows_by: "deployments",
        short: &[100, 1_000],
        long: &[100, 1_000, 10_000],
        operations: 50,
        prepare: two_versions,
        grow: deployments,
        operate: roll_back,
    },
    Row {
        name: "list the failed deployments",
        grows_by: "deployments",
        short: &[100, 1_000],
        long: &[100, 1_000, 10_000],
        operations: 50,
        prepare: two_versions,
        grow: deployments,
        operate: failed_deployments,
    },
    Row {
        name: "set a variable",
        grows_by: "variables of other functions",
        short: &[500, 5_000],
        long: &[500, 5_000, 50_000],
        operations: 20,
        prepare: two_versions,
        grow: variables,
        operate: |node| Box::pin(set(node, NAME, 0, 1)),
    },
    Row {
        name: "set 500 variables",
        grows_by: "variables of other functions",
        short: &[500, 5_000],
        long: &[500, 5_000, 50_000],
        operations: 2,
        prepare: two_versions,
        grow: variables,
        operate: |node| Box::pin(set(node, NAME, 0, 500)),
    },
    Row {
        name: "read the last 100 log lines",
        grows_by: "log lines",
        short: &[10_000, 50_000],
        long: &[10_000, 100_000, 1_000_000],
        operations: 20,
        prepare: two_versions,
        grow: log_lines,
        operate: last_logs,
    },
];

fn two_versions(node: &Node) -> Step<'_> {
    Box::pin(async move {
        node.deploy(NAME, code(1), true).await?;
        node.deploy(NAME, code(2), true).await
    })
}

fn functions(node: &Node, from: u32, to: u32) -> Step<'_> {
    Box::pin(async move {
        for number in from..to {
            node.register(&format!("function-{number}")).await?;
        }
        Ok(())
    })
}

fn versions(node: &Node, from: u32, to: u32) -> Step<'_> {
    Box::pin(async move {
        for number in from.max(2)..to {
            node.deploy(NAME, code(number + 1), false).await?;
        }
        Ok(())
    })
}

fn deployments(node: &Node, from: u32, to: u32) -> Step<'_> {
    Box::pin(async move {
        for _ in from..to {
            roll_back(node).await?;
        }
        Ok(())
    })
}

/// Variables that one command sets.
const AT_ONCE: u32 = 100;

fn variables(node: &Node, from: u32, to: u32) -> Step<'_> {
    Box::pin(async move {
        for first in (from..to).step_by(AT_ONCE as usize) {
            let name = format!("function-{first}");
            node.register(&name).await?;
            set(node, &name, first, AT_ONCE.min(to - first)).await?;
        }
        Ok(())
    })
}

async fn set(node: &Node, function: &str, first: u32, count: u32) -> Result<()> {
    let turn = node.turn.get();
    let one = |number| VariableInput {
        key: format!("KEY_{number}"),
        value: Some(format!("{turn}-{number}").into()),
        ..VariableInput::default()
    };
    let variables = (first..first + count).map(one).collect();
    let request =
        SetVariablesRequest { function_id: Some(function.into()), variables, ..SetVariablesRequest::default() };
    node.client.call(&request).await?;
    Ok(())
}

/// Log lines of one invocation.
const LINES: u32 = 500;

fn log_lines(node: &Node, from: u32, to: u32) -> Step<'_> {
    Box::pin(async move {
        let talks = format!(
            "export default () => {{ for (let i = 0; i < {LINES}; i++) console.log(\"line\", i); return new Response(\"\"); }};"
        );
        node.deploy(NAME, talks, true).await?;
        let request = InvokeRequest { function_id: NAME.into(), ..InvokeRequest::default() };
        for _ in (from..to).step_by(LINES as usize) {
            node.client.call(&request).await?;
        }
        Ok(())
    })
}

fn roll_back(node: &Node) -> Step<'_> {
    Box::pin(async move {
        node.client.call(&RollbackRequest { function_id: NAME.into(), ..RollbackRequest::default() }).await?;
        Ok(())
    })
}

fn list_all(node: &Node) -> Step<'_> {
    Box::pin(async move {
        let mut cursor = None;
        loop {
            let page = node.client.call(&ListRequest { limit: Some(100), cursor, ..ListRequest::default() }).await?;
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    })
}

fn failed_deployments(node: &Node) -> Step<'_> {
    Box::pin(async move {
        let status = Some(DeploymentStatus::Failed);
        node.client.call(&DeploymentsRequest { status, ..DeploymentsRequest::default() }).await?;
        Ok(())
    })
}

fn last_logs(node: &Node) -> Step<'_> {
    Box::pin(async move {
        let request = LogsRequest { function_id: NAME.into(), limit: Some(100), ..LogsRequest::default() };
        node.client.call(&request).await?;
        Ok(())
    })
}
