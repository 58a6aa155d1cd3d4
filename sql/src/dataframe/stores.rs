//! Object stores of a session, opened when they are first named: with the credentials of this process, for schemas only.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::ObjectStore;
use tidemill_engine::error::to_datafusion;
use tidemill_engine::runtime::object_store;
use url::Url;

/// DataFusion's registry, which opens what it does not know as the cluster would.
#[derive(Debug, Default)]
pub(super) struct Stores(DefaultObjectStoreRegistry);

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.0.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.0.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.0.get_store(url).or_else(|unknown| match object_store(url).map_err(to_datafusion)? {
            Some(store) => {
                self.0.register_store(url, Arc::clone(&store));
                Ok(store)
            }
            None => Err(unknown),
        })
    }
}
