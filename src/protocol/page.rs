//! Lists that come in pages, for clients that want all of one.

use super::ipc::Call;
use super::message::{
    AliasesRequest, AliasesResponse, DeploymentsRequest, DeploymentsResponse, EnvironmentsRequest,
    EnvironmentsResponse, ListRequest, ListResponse, ListTokensRequest, ListTokensResponse, PreviewsRequest,
    PreviewsResponse, RolloutsRequest, RolloutsResponse, VersionsRequest, VersionsResponse,
};

/// Rows that a page has at most.
pub const PAGE_MAX: u32 = 1_000;

/// A request for a page of a list.
pub trait Paged: Call<Response: Page> {
    /// Asks for so many rows; behind those of the page that had this cursor.
    fn ask(&mut self, limit: u32, cursor: Option<String>);

    /// Forgets what the first page leaves out: a cursor knows.
    fn skip_nothing(&mut self);
}

/// A page of a list.
pub trait Page {
    /// How many rows it has.
    fn rows(&self) -> usize;

    /// Where the next one begins, if there is one.
    fn next(&mut self) -> Option<String>;

    /// Puts the rows of the next page behind those of this one.
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
