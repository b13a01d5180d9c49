//! SQLite on any mounted disk: a virtual file system registered under the name [`VFS`].
//!
//! It gives the guarantees of SQLite's own Unix files and no others: the folder is synced at the
//! first sync of a journal or write-ahead log that this handle may have created (an error of
//! that sync is ignored, as there), and after a removal when SQLite asks for it. The index that
//! connections share is heap memory, but its file is created and grown on the disk, so that a
//! full or read-only disk is met there too. Unless asked to, it does not claim that a write
//! leaves the rest of a sector alone when power fails.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use rusqlite::ffi;
use sela_store::disk::OpenMode;

use super::files::{LAST_ERROR, Open, answer, fail, folder_of, level_of, open_file, point_of};
use super::rng::Rng;

/// The name that SQLite knows this file system by.
pub(crate) const VFS: &str = "sela-sim";

/// What SQLite allocates for each file: its own head, then ours.
#[repr(C)]
struct RawFile {
    head: ffi::sqlite3_file,
    open: *mut Open,
}

/// The path that a C string spells.
///
/// # Safety
/// `name` must be a string that ends in a zero byte and outlives the answer.
unsafe fn path_of<'a>(name: *const c_char) -> &'a Path {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    Path::new(name.to_str().expect("the tests use plain names"))
}

/// Our part of a file of SQLite's.
///
/// # Safety
/// `file` must have been opened by `x_open` and not been closed; SQLite uses a file from one
/// thread at a time, which makes the borrow exclusive.
unsafe fn open_of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: `x_open` stored a live box here, and only `x_close` frees it.
    unsafe { &mut *(*file.cast::<RawFile>()).open }
}

unsafe extern "C" fn x_open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes null or a string that lives as long as the file.
    let path = (!name.is_null()).then(|| unsafe { path_of(name) });
    let raw = file.cast::<RawFile>();
    // SAFETY: SQLite allocated `szOsFile` bytes at `file`.
    unsafe { (*raw).head.pMethods = ptr::null() };
    let (open, read_only) = match open_file(path, flags) {
        Ok(opened) => opened,
        Err(error) => return fail(&error, ffi::SQLITE_CANTOPEN),
    };
    let writable = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
    let got = if read_only {
        flags & !writable | ffi::SQLITE_OPEN_READONLY
    } else {
        flags
    };
    // SAFETY: as above; `out_flags` is null or a place for one number.
    unsafe {
        (*raw).open = Box::into_raw(Box::new(open));
        (*raw).head.pMethods = &METHODS;
        if !out_flags.is_null() {
            *out_flags = got;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once; the box came from `x_open`.
    drop(unsafe { Box::from_raw((*file.cast::<RawFile>()).open) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    bytes: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: `to` has room for `bytes` bytes, which a memory of SQLite's own holds.
    let buf = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), bytes as usize) };
    // SAFETY: an open file.
    unsafe { open_of(file) }.read(buf, offset as u64)
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: `from` holds `bytes` bytes.
    let buf = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes as usize) };
    // SAFETY: an open file.
    let open = unsafe { open_of(file) };
    answer(
        open.file.write_at(buf, offset as u64),
        ffi::SQLITE_IOERR_WRITE,
    )
}

unsafe extern "C" fn x_truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { open_of(file) };
    answer(open.file.set_len(len as u64), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn x_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { open_of(file) }.sync()
}

unsafe extern "C" fn x_file_size(file: *mut ffi::sqlite3_file, len: *mut i64) -> c_int {
    // SAFETY: an open file.
    match unsafe { open_of(file) }.file.len() {
        Ok(now) => {
            // SAFETY: `len` is a place for one number.
            unsafe { *len = now as i64 };
            ffi::SQLITE_OK
        }
        Err(error) => fail(&error, ffi::SQLITE_IOERR_FSTAT),
    }
}

unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { open_of(file) };
    let mut lock = open.node.lock.lock().expect("no panic under it");
    match lock.raise(&mut open.level, level_of(level)) {
        true => ffi::SQLITE_OK,
        false => ffi::SQLITE_BUSY,
    }
}

unsafe extern "C" fn x_unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { open_of(file) }.lower(level_of(level));
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_check_reserved_lock(
    file: *mut ffi::sqlite3_file,
    reserved: *mut c_int,
) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { open_of(file) };
    let lock = open.node.lock.lock().expect("no panic under it");
    // SAFETY: `reserved` is a place for one number.
    unsafe { *reserved = c_int::from(lock.is_reserved()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_file_control(
    _file: *mut ffi::sqlite3_file,
    _op: c_int,
    _arg: *mut c_void,
) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn x_sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    512
}

unsafe extern "C" fn x_device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: an open file.
    unsafe { open_of(file) }.point.characteristics
}

unsafe extern "C" fn x_shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    region_bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { open_of(file) };
    let (place, code) =
        match open.map_shared_index(region as usize, region_bytes as usize, extend != 0) {
            Ok(place) => (place, ffi::SQLITE_OK),
            Err(code) => (ptr::null_mut(), code),
        };
    // SAFETY: `out` is a place for one pointer; what it points at lives until the last
    // connection leaves the shared index, which SQLite does before it closes the file.
    unsafe { *out = place };
    code
}

unsafe extern "C" fn x_shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { open_of(file) };
    let Some(held) = &mut open.slots else {
        return ffi::SQLITE_IOERR_SHMLOCK;
    };
    let mut index = open.node.shared_index.lock().expect("no panic under it");
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        index.slots.give_back(held, first as usize, count as usize);
        return ffi::SQLITE_OK;
    }
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    match index
        .slots
        .take(held, first as usize, count as usize, exclusive)
    {
        true => ffi::SQLITE_OK,
        false => ffi::SQLITE_BUSY,
    }
}

unsafe extern "C" fn x_shm_barrier(_file: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn x_shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { open_of(file) }.leave_shared_index(delete != 0);
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_delete(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_folder: c_int,
) -> c_int {
    // SAFETY: SQLite passes a string.
    let path = unsafe { path_of(name) };
    let Some(point) = point_of(path) else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    if let Err(error) = point.disk.remove_file(path) {
        return match error.kind() {
            io::ErrorKind::NotFound => fail(&error, ffi::SQLITE_IOERR_DELETE_NOENT),
            _ => fail(&error, ffi::SQLITE_IOERR_DELETE),
        };
    }
    if sync_folder & 1 == 0 {
        return ffi::SQLITE_OK;
    }
    answer(
        point.disk.sync_dir(folder_of(path)),
        ffi::SQLITE_IOERR_DIR_FSYNC,
    )
}

unsafe extern "C" fn x_access(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a string.
    let path = unsafe { path_of(name) };
    let Some(point) = point_of(path) else {
        return ffi::SQLITE_IOERR_ACCESS;
    };
    let there = match point.disk.exists(path) {
        Ok(there) => there,
        Err(error) => return fail(&error, ffi::SQLITE_IOERR_ACCESS),
    };
    // As on Unix, an empty file counts as none when SQLite asks whether it exists.
    let empty = || match point.disk.open(path, OpenMode::Read) {
        Ok(file) => file.len().is_ok_and(|len| len == 0),
        Err(_) => false,
    };
    let yes = there && !(flags == ffi::SQLITE_ACCESS_EXISTS && empty());
    // SAFETY: `out` is a place for one number.
    unsafe { *out = c_int::from(yes) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a string.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if bytes.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has room for `room` bytes, and the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_randomness(
    _vfs: *mut ffi::sqlite3_vfs,
    bytes: c_int,
    out: *mut c_char,
) -> c_int {
    static SEED: AtomicU64 = AtomicU64::new(1);
    // SAFETY: `out` has room for `bytes` bytes.
    let buf = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), bytes as usize) };
    Rng::new(SEED.fetch_add(1, Ordering::Relaxed)).fill(buf);
    bytes
}

unsafe extern "C" fn x_sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::sleep(std::time::Duration::from_micros(microseconds.max(0) as u64));
    microseconds
}

/// Milliseconds since noon of 24 November 4714 BC: a fixed day, a little later at every call.
unsafe extern "C" fn x_current_time_int64(_vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    static NOW: AtomicI64 = AtomicI64::new(212_619_168_000_000);
    // SAFETY: `out` is a place for one number.
    unsafe { *out = NOW.fetch_add(1, Ordering::Relaxed) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    let mut milliseconds = 0;
    // SAFETY: both places are good for one number.
    unsafe {
        x_current_time_int64(vfs, &mut milliseconds);
        *out = milliseconds as f64 / 86_400_000.0;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_get_last_error(
    _vfs: *mut ffi::sqlite3_vfs,
    _room: c_int,
    _out: *mut c_char,
) -> c_int {
    LAST_ERROR.load(Ordering::Relaxed)
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes the file system known to SQLite, once and for good.
pub(super) fn register() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<RawFile>() as c_int,
            mxPathname: 512,
            pNext: ptr::null_mut(),
            zName: c"sela-sim".as_ptr(),
            pAppData: ptr::null_mut(),
            xOpen: Some(x_open),
            xDelete: Some(x_delete),
            xAccess: Some(x_access),
            xFullPathname: Some(x_full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(x_randomness),
            xSleep: Some(x_sleep),
            xCurrentTime: Some(x_current_time),
            xGetLastError: Some(x_get_last_error),
            xCurrentTimeInt64: Some(x_current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the structure and its name live for ever, and every function keeps SQLite's
        // contract for it.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(code, ffi::SQLITE_OK);
    });
}
