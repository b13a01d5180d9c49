//! Changing rows that are there, and going through them by id.

use sela_store::{Edit, Edited, Fields, Filter, Id, IdPage, Maintained, Which};

use super::Collection;
use crate::error::{Error, Result};

impl Collection {
    /// Changes payloads of rows, or removes rows: those of some ids, or all that meet a condition
    /// when their turn comes. No other write comes in between; durable when it returns.
    ///
    /// Very many rows are changed in steps, each all or nothing: see
    /// [`sela_store::Collection::edit`].
    ///
    /// ```
    /// # let home = tempfile::tempdir()?;
    /// use sela::{CollectionOptions, Edit, Engine, Filter, Id, Item, Options, Which};
    ///
    /// let engine = Engine::open(Options::new(home.path()))?;
    /// let points = engine.create("points", &CollectionOptions::external(2))?;
    /// points.upsert(&[Item::vector(1, [0.0, 1.0]), Item::vector(2, [1.0, 0.0])])?;
    ///
    /// let seen = serde_json::json!({"seen": true}).as_object().cloned().unwrap_or_default();
    /// let edit = Edit::Merge { at: None, values: seen };
    /// points.edit(&Which::Ids(vec![Id::Num(1)]), &edit)?;
    /// points.edit(&Which::Filter(Filter::eq("seen", true)), &Edit::Delete)?;
    /// assert_eq!(points.count(None)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn edit(&self, which: &Which, edit: &Edit) -> Result<Edited> {
        Ok(self.store.edit(which, edit)?)
    }

    /// Gives rows other vectors and leaves their texts and payloads; ids that are not there are
    /// passed over. Where texts can be asked for, see [`Collection::declare_vectors`].
    pub fn replace_vectors(&self, vectors: &[(Id, Vec<f32>)]) -> Result<Edited> {
        if let Some((id, _)) = vectors.first()
            && !self.declared
            && !self.is_external()
        {
            return Err(Error::Undeclared {
                id: id.clone(),
                name: self.name.clone(),
                built_with: self.built_with().to_owned(),
            });
        }
        Ok(self.store.replace_vectors(vectors)?)
    }

    /// A page of rows by ascending id (numbers, then UUIDs, then strings), from an id on.
    pub fn scroll_by_id(
        &self,
        from: Option<&Id>,
        limit: usize,
        filter: Option<&Filter>,
        fields: Fields,
    ) -> Result<IdPage> {
        Ok(self.store.scroll_by_id(from, limit, filter, fields)?)
    }

    /// Rewrites what is mostly dead and joins what is small, now. Writes do a bounded step of that
    /// by themselves as soon as enough has gathered, so this is for those who want the space back
    /// at once; writers wait meanwhile.
    pub fn compact(&self) -> Result<Maintained> {
        Ok(self.store.compact()?)
    }
}
