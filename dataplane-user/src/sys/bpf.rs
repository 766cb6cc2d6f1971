//! bpf(2) beyond what aya offers: batches, links by interface index, and what the kernel says about an object.
//!
//! The layouts are those of `union bpf_attr` in `include/uapi/linux/bpf.h`; the kernel takes a shorter structure as
//! one that ends in zeroes.

use std::{
    ffi::CString,
    io,
    marker::PhantomData,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use dataplane_common::abi::Plain;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// `enum bpf_attach_type`.
const BPF_TCX_INGRESS: u32 = 46;
/// `enum bpf_link_type`.
const BPF_LINK_TYPE_TCX: u32 = 11;

#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    _pad: u32,
    expected_revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// One call.
///
/// # Safety
/// Every pointer and length in `attributes` must describe memory that the command may read or write.
#[expect(unsafe_code, reason = "no crate wraps these commands")]
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a live structure of the size that is passed; the caller vouches for what it points to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn address<T>(value: *const T) -> u64 {
    value.expose_provenance() as u64
}

/// Takes the file descriptor that a command returned.
#[expect(unsafe_code, reason = "a number becomes an owned file descriptor")]
fn take_fd(number: libc::c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the command has just made this descriptor (close-on-exec) and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A value of zeroes, for the kernel to fill in.
#[expect(unsafe_code, reason = "a value is made of zeroes")]
fn zeroed<T: Plain>() -> T {
    // SAFETY: `Plain` promises that every bit pattern is a valid `T`.
    unsafe { std::mem::zeroed() }
}

/// A map whose keys are `K` and whose values are `V`, one per processor if it is a per-CPU map.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    fd: OwnedFd,
    /// Values per key: the number of possible processors for a per-CPU map, else 1.
    copies: usize,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// Refuses a map of another layout.
    pub(crate) fn new(fd: OwnedFd, copies: usize) -> io::Result<Self> {
        use std::os::fd::AsFd as _;
        let layout = map_layout(fd.as_fd())?;
        if layout.key_size as usize != size_of::<K>() || layout.value_size as usize != size_of::<V>() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        // The kernel rounds each processor's value up to 8 bytes; a value whose copies lie closer cannot be read so.
        if copies > 1 && !size_of::<V>().is_multiple_of(8) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Self {
            fd,
            copies,
            types: PhantomData,
        })
    }

    /// The same map by another descriptor.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            copies: self.copies,
            types: PhantomData,
        })
    }

    fn map_fd(&self) -> u32 {
        self.fd.as_raw_fd().unsigned_abs()
    }

    /// The value at `key` (all processors' copies), or `None`.
    #[expect(unsafe_code, reason = "bpf(2)")]
    pub(crate) fn get(&self, key: K) -> io::Result<Option<Vec<V>>> {
        let mut value = vec![zeroed::<V>(); self.copies];
        let mut element = Element {
            map_fd: self.map_fd(),
            key: address(&raw const key),
            value: address(value.as_mut_ptr()),
            ..Element::default()
        };
        // SAFETY: `key` and `value` live through the call and have the sizes that `new` compared with the map's;
        // every bit pattern is a valid `V`.
        match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut element) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the value at `key`: the same for all processors.
    #[expect(unsafe_code, reason = "bpf(2)")]
    pub(crate) fn put(&self, key: K, value: V) -> io::Result<()> {
        let values = vec![value; self.copies];
        let mut element = Element {
            map_fd: self.map_fd(),
            key: address(&raw const key),
            value: address(values.as_ptr()),
            ..Element::default()
        };
        // SAFETY: as in `get`; the kernel only reads.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut element) }.map(drop)
    }

    /// Removes `key`; whether it was there.
    #[expect(unsafe_code, reason = "bpf(2)")]
    pub(crate) fn remove(&self, key: K) -> io::Result<bool> {
        let mut element = Element {
            map_fd: self.map_fd(),
            key: address(&raw const key),
            ..Element::default()
        };
        // SAFETY: `key` lives through the call and has the map's key size.
        match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut element) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes all pairs in one call; `Err` says how many were written before the kernel refused one. For a per-CPU
    /// map, `values` holds every processor's copy.
    #[expect(unsafe_code, reason = "bpf(2)")]
    pub(crate) fn put_all(&self, keys: &[K], values: &[V]) -> Result<(), (usize, io::Error)> {
        if keys.len() * self.copies != values.len() {
            return Err((0, io::Error::from(io::ErrorKind::InvalidInput)));
        }
        let mut batch = self.batch(keys, Some(values));
        // SAFETY: both slices hold `count` elements of the map's sizes (checked above) and live through the call; the
        // kernel only reads them.
        match unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut batch) } {
            Ok(_) => Ok(()),
            Err(error) => Err((batch.count as usize, error)),
        }
    }

    /// Removes all keys in one call; `Err` says how many were removed before the kernel refused one.
    #[expect(unsafe_code, reason = "bpf(2)")]
    pub(crate) fn remove_all(&self, keys: &[K]) -> Result<(), (usize, io::Error)> {
        let mut batch = self.batch(keys, None);
        // SAFETY: `keys` holds `count` elements of the map's key size and lives through the call.
        match unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut batch) } {
            Ok(_) => Ok(()),
            Err(error) => Err((batch.count as usize, error)),
        }
    }

    fn batch(&self, keys: &[K], values: Option<&[V]>) -> Batch {
        Batch {
            keys: address(keys.as_ptr()),
            values: values.map_or(0, |values| address(values.as_ptr())),
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            map_fd: self.map_fd(),
            ..Batch::default()
        }
    }

    /// Everything in the map, at most `limit` pairs: keys, and for each key all copies of its value.
    #[expect(unsafe_code, reason = "bpf(2)")]
    pub(crate) fn all(&self, limit: usize) -> io::Result<(Vec<K>, Vec<V>)> {
        const STEP: usize = 4096;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        // The cursor is a key or a bucket number, whichever is larger.
        let (mut from, mut to) = ([0u64; 8], [0u64; 8]);
        let mut first = true;
        let mut room = STEP;
        while keys.len() < limit {
            let mut some_keys = vec![zeroed::<K>(); room];
            let mut some_values = vec![zeroed::<V>(); room * self.copies];
            let mut batch = Batch {
                in_batch: if first { 0 } else { address(from.as_ptr()) },
                out_batch: address(to.as_mut_ptr()),
                values: address(some_values.as_mut_ptr()),
                ..self.batch(&some_keys, None)
            };
            batch.keys = address(some_keys.as_mut_ptr());
            // SAFETY: both vectors have room for `count` elements of the map's sizes; the cursors are larger than
            // any key of ours; all live through the call, and every bit pattern is valid in all of them.
            let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) };
            let done = match result {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // A hash bucket did not fit.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < limit.max(STEP) * 2 => {
                    room *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = batch.count as usize;
            keys.extend(some_keys.into_iter().take(count));
            values.extend(some_values.into_iter().take(count * self.copies));
            if done {
                break;
            }
            (from, first) = (to, false);
        }
        Ok((keys, values))
    }
}

/// What the kernel says about a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct MapLayout {
    /// `enum bpf_map_type`.
    pub(crate) kind: u32,
    id: u32,
    /// Bytes.
    pub(crate) key_size: u32,
    /// Bytes.
    pub(crate) value_size: u32,
    /// Entries.
    pub(crate) max_entries: u32,
    /// `BPF_F_*`.
    pub(crate) flags: u32,
}

/// What the kernel says about a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct ProgramHead {
    kind: u32,
    id: u32,
    tag: [u8; 8],
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct LinkHead {
    kind: u32,
    id: u32,
    prog_id: u32,
    _pad: u32,
    ifindex: u32,
    attach_type: u32,
}

/// Structures that the kernel may fill in: `repr(C)`, integers only.
trait Filled: Default {}
impl Filled for MapLayout {}
impl Filled for ProgramHead {}
impl Filled for LinkHead {}

#[expect(unsafe_code, reason = "bpf(2)")]
fn info<T: Filled>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut value = T::default();
    let mut attributes = Info {
        bpf_fd: raw(fd),
        info_len: u32::try_from(size_of::<T>()).unwrap_or(u32::MAX),
        info: address(&raw mut value),
    };
    // SAFETY: the kernel writes at most `info_len` bytes, the size of `value`; every bit pattern is a valid `T`.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(value)
}

/// What the kernel says about a map.
pub(crate) fn map_layout(map: BorrowedFd<'_>) -> io::Result<MapLayout> {
    info(map)
}

/// The hash over a program's instructions.
pub(crate) fn program_tag(program: BorrowedFd<'_>) -> io::Result<[u8; 8]> {
    Ok(info::<ProgramHead>(program)?.tag)
}

/// The interface that a tcx link is on; 0 when the interface is gone, `None` when it is no tcx link.
pub(crate) fn tcx_ifindex(link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let head: LinkHead = info(link)?;
    Ok((head.kind == BPF_LINK_TYPE_TCX).then_some(head.ifindex))
}

/// Attaches a program to the ingress of an interface of the calling thread's namespace, after all others.
#[expect(unsafe_code, reason = "bpf(2)")]
pub(crate) fn attach_tcx(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreate {
        prog_fd: raw(program),
        target_ifindex: ifindex,
        attach_type: BPF_TCX_INGRESS,
        ..LinkCreate::default()
    };
    // SAFETY: the structure holds no pointers.
    take_fd(unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }?)
}

/// Puts another program under a link; no packet sees neither or both.
#[expect(unsafe_code, reason = "bpf(2)")]
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link_fd: raw(link),
        new_prog_fd: raw(program),
        ..LinkUpdate::default()
    };
    // SAFETY: the structure holds no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Pins an object.
#[expect(unsafe_code, reason = "bpf(2)")]
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attributes = Object {
        pathname: address(path.as_ptr()),
        bpf_fd: raw(object),
        file_flags: 0,
    };
    // SAFETY: `path` is a C string that lives through the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// Opens a pinned object.
#[expect(unsafe_code, reason = "bpf(2)")]
pub(crate) fn get_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attributes = Object {
        pathname: address(path.as_ptr()),
        ..Object::default()
    };
    // SAFETY: `path` is a C string that lives through the call.
    take_fd(unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?)
}
