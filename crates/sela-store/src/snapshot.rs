//! A second collection with the same contents, and the digest that says whether two are equal.

use std::path::Path;

use crate::bits;
use crate::catalog::{Access, CATALOG, Catalog};
use crate::collection::Collection;
use crate::disk::OpenMode;
use crate::error::{Error, Result};
use crate::open::{create_folder, sync_dir};
use crate::segment::{self, SEGMENTS};
use crate::sum::Sum;
use crate::view::Kind;

impl Collection {
    /// Writes a collection of the same contents into a new or empty folder: hard links to the
    /// segment files where the file system has them, else copies, and a copy of the catalog.
    ///
    /// A hard link is the same file under a second name: it protects from mistakes, not from a
    /// failing disk. Writers wait meanwhile. A snapshot cut short does not open.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::DiskFull`], and what the file systems bring.
    pub fn snapshot(&self, dest: &Path) -> Result<()> {
        let disk = &self.options.disk;
        let writer = match self.writer {
            Some(_) => Some(self.writer()?),
            None => None,
        };
        create_folder(disk, dest)?;
        let names = disk
            .list(dest)
            .map_err(|error| Error::io("list", dest, error))?;
        if let Some(name) = names.into_iter().next() {
            return Err(Error::NotEmpty {
                dir: dest.to_owned(),
                name,
            });
        }
        create_folder(disk, &dest.join(SEGMENTS))?;
        match writer {
            Some(writer) => self.copy_into(&writer.catalog, dest),
            None => self.with_reader(|catalog| self.copy_into(catalog, dest)),
        }
    }

    fn copy_into(&self, catalog: &Catalog, dest: &Path) -> Result<()> {
        let disk = &self.options.disk;
        catalog.begin_read()?;
        let copied = (|| {
            for row in catalog.segments()? {
                let (from, to) = (
                    segment::path(&self.dir, row.number),
                    segment::path(dest, row.number),
                );
                disk.link_or_copy(&from, &to)
                    .map_err(|error| Error::io("link", &to, error))?;
            }
            sync_dir(disk, &dest.join(SEGMENTS))?;
            // The catalog comes last: until it is whole, the folder is no collection.
            let mut options = self.options.clone();
            options.read_only = false;
            let mut copy = Catalog::connect_bare(dest, &options, Access::Create)?;
            catalog.backup(&mut copy)
        })();
        catalog.end_read();
        copied?;
        let path = dest.join(CATALOG);
        disk.open(&path, OpenMode::ReadWrite)
            .and_then(|file| file.sync())
            .map_err(|error| Error::io("sync", &path, error))?;
        sync_dir(disk, dest)
    }

    /// A digest of the contents: of the schema, all live rows with their sequences and
    /// documents, which rows are dead, and how rows are spread over segments. Two collections
    /// built by the same steps have the same; so has a snapshot.
    ///
    /// # Errors
    /// What [`Collection::view`] may bring.
    pub fn fingerprint(&self) -> Result<u128> {
        let view = self.view()?;
        let schema =
            serde_json::to_vec(&self.schema).map_err(|error| Error::Schema(error.to_string()))?;
        let mut sum = Sum::new("collection").bytes(&schema).int(view.last_seq());
        for part in view.parts() {
            match &part.0 {
                Kind::Sealed(sealed) => {
                    sum = sum.bytes(&sealed.segment.row().digest.to_le_bytes());
                    for word in part.live() {
                        sum = sum.int(*word);
                    }
                }
                Kind::Fresh(fresh) => {
                    for row in bits::iter(fresh.live(), 0) {
                        sum = sum
                            .bytes(&fresh.seqs()[row as usize])
                            .bytes(&fresh.id(row).to_key())
                            .int(fresh.doc(row))
                            .bytes(fresh.record(row));
                    }
                }
            }
        }
        Ok(sum.finish_wide())
    }
}
