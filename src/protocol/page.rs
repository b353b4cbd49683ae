//! Paged lists, for clients that want every row.

use super::ipc::CommandRequest;
use super::message::{
    AliasesRequest, AliasesResponse, DeploymentsRequest, DeploymentsResponse, EnvironmentsRequest,
    EnvironmentsResponse, ListRequest, ListResponse, ListTokensRequest, ListTokensResponse, PreviewsRequest,
    PreviewsResponse, RolloutsRequest, RolloutsResponse, VersionsRequest, VersionsResponse,
};

/// Most rows in one page.
pub const PAGE_MAX: u32 = 1_000;

/// Request for one page of a list.
pub trait Paged: CommandRequest<Response: Page> {
    /// Sets the number of rows to ask for, and the cursor that the previous page returned.
    fn ask(&mut self, limit: u32, cursor: Option<String>);

    /// Clears the offset of the first page. The following pages start at their cursor.
    fn skip_nothing(&mut self);
}

/// A page of a list.
pub trait Page {
    /// Returns the number of rows in this page.
    fn rows(&self) -> usize;

    /// Takes the cursor of the next page, if there is one.
    fn next(&mut self) -> Option<String>;

    /// Appends the rows of the next page to this one.
    fn join(&mut self, next: Self);
}

macro_rules! paged {
    ($($request:ident $($offset:ident)? -> $response:ident.$rows:ident;)*) => {
        $(
            impl Paged for $request {
                fn ask(&mut self, limit: u32, cursor: Option<String>) {
                    self.limit = Some(limit);
                    self.cursor = cursor;
                }

                fn skip_nothing(&mut self) {
                    $(self.$offset = None;)?
                }
            }

            impl Page for $response {
                fn rows(&self) -> usize {
                    self.$rows.len()
                }

                fn next(&mut self) -> Option<String> {
                    self.next_cursor.take()
                }

                fn join(&mut self, next: Self) {
                    self.$rows.extend(next.$rows);
                    self.next_cursor = next.next_cursor;
                }
            }
        )*
    };
}

paged! {
    ListRequest offset -> ListResponse.functions;
    VersionsRequest -> VersionsResponse.versions;
    DeploymentsRequest offset -> DeploymentsResponse.deployments;
    ListTokensRequest offset -> ListTokensResponse.tokens;
    RolloutsRequest -> RolloutsResponse.rollouts;
    AliasesRequest -> AliasesResponse.aliases;
    EnvironmentsRequest -> EnvironmentsResponse.environments;
    PreviewsRequest -> PreviewsResponse.previews;
}
