//! Loads every program that the agent carries and prints, as JSON, what it cost the kernel's verifier.
//!
//! `cargo xtask verifier` makes a table of it and compares it with the budget.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{Program, ProgramInfo},
};
use aya_obj::{Object, generated::bpf_insn};
use dataplane_common::{
    limits::{DEFAULT_MAX_WIRES, MAX_WIRES, POSITIONS_PER_WIRE, SPLITS_PER_WIRE},
    names::{
        GLOBAL_EVENT_SAMPLE, GLOBAL_PROBE_COOKIE, MAP_LIVENESS, MAP_OWN_POSITIONS, MAP_POSITIONS, MAP_SPLITS,
        MAP_WIRE_COUNTERS,
    },
};
use dataplane_user::OBJECT;
use serde_json::{Value, json};

/// A way to configure the programs before loading.
struct Configuration {
    name: &'static str,
    max_wires: u32,
    event_sample: u32,
    probe_cookie: u64,
}

/// What the agent loads by default, and everything switched on with the largest tables.
const CONFIGURATIONS: &[Configuration] = &[
    Configuration {
        name: "default",
        max_wires: DEFAULT_MAX_WIRES,
        event_sample: 0,
        probe_cookie: 1,
    },
    Configuration {
        name: "maximum",
        max_wires: MAX_WIRES,
        event_sample: 1,
        probe_cookie: 1,
    },
];

fn main() -> Result<()> {
    let mut rows = Vec::new();
    for configuration in CONFIGURATIONS {
        rows.extend(
            load(OBJECT, configuration).with_context(|| format!("configuration `{}`", configuration.name))?,
        );
    }
    println!("{}", serde_json::to_string_pretty(&rows)?);
    Ok(())
}

fn load(bytes: &[u8], configuration: &Configuration) -> Result<Vec<Value>> {
    let positions = configuration.max_wires * POSITIONS_PER_WIRE;
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
        .map_max_entries(MAP_OWN_POSITIONS, positions)
        .map_max_entries(MAP_POSITIONS, positions)
        .map_max_entries(MAP_WIRE_COUNTERS, positions)
        .map_max_entries(MAP_LIVENESS, positions)
        .map_max_entries(MAP_SPLITS, configuration.max_wires * SPLITS_PER_WIRE)
        .override_global(GLOBAL_EVENT_SAMPLE, &configuration.event_sample, true)
        .override_global(GLOBAL_PROBE_COOKIE, &configuration.probe_cookie, true)
        .load(bytes)?;
    let object = Object::parse(bytes)?;
    let mut rows = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let info = load_program(program).with_context(|| format!("program `{name}`"))?;
        rows.push(json!({
            "program": name,
            "configuration": configuration.name,
            "verified_instructions": info.verified_instruction_count(),
            "stack_bytes": stack_bytes(&object, name)?,
            "translated_bytes": info.size_translated(),
            "jited_bytes": info.size_jitted(),
        }));
    }
    Ok(rows)
}

fn load_program(program: &mut Program) -> Result<ProgramInfo> {
    match program {
        Program::SchedClassifier(program) => {
            program.load()?;
            Ok(program.info()?)
        }
        Program::Xdp(program) => {
            program.load()?;
            Ok(program.info()?)
        }
        other => bail!(
            "is of type {:?}, which this report cannot load yet: add it to `load_program`",
            other.prog_type()
        ),
    }
}

/// An upper bound of the stack that a program uses: its own frame and those of all functions that are not inlined.
/// The kernel allows 512 bytes along any call chain.
fn stack_bytes(object: &Object, name: &str) -> Result<u32> {
    let key = object
        .programs
        .get(name)
        .context("the object has no such program")?
        .function_key();
    let entries: Vec<_> = object
        .programs
        .values()
        .map(aya_obj::Program::function_key)
        .collect();
    let frames = object
        .functions
        .iter()
        .filter(|(other, _)| **other == key || !entries.contains(other));
    Ok(frames
        .map(|(_, function)| frame_bytes(&function.instructions))
        .sum())
}

/// The deepest byte below the frame pointer that a function names: as an operand, or in an address it computes.
fn frame_bytes(instructions: &[bpf_insn]) -> u32 {
    const FRAME_POINTER: u8 = 10;
    const CLASS: u8 = 0x07;
    const ADD_IMMEDIATE_64: u8 = 0x07;
    const MOVE_REGISTER_64: u8 = 0xbf;
    let mut deepest = 0;
    // Registers that hold a copy of the frame pointer, as the compiler makes just before it subtracts.
    let mut copies = [false; 16];
    for instruction in instructions {
        let (to, from) = (instruction.dst_reg(), instruction.src_reg());
        let offset = i32::from(instruction.off);
        let depth = match instruction.code {
            MOVE_REGISTER_64 => {
                copies[usize::from(to & 15)] = from == FRAME_POINTER;
                0
            }
            ADD_IMMEDIATE_64 if copies[usize::from(to & 15)] => -instruction.imm,
            code => match code & CLASS {
                1 if from == FRAME_POINTER => -offset,   // load
                2 | 3 if to == FRAME_POINTER => -offset, // store
                _ => 0,
            },
        };
        deepest = deepest.max(depth);
    }
    u32::try_from(deepest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
        let mut instruction = bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(to, from),
            off,
            imm,
        };
        instruction.set_dst_reg(to);
        instruction
    }

    #[test]
    fn a_store_below_the_frame_pointer_counts() {
        let store = instruction(0x63, 10, 1, -4, 0);
        let elsewhere = instruction(0x63, 2, 1, -64, 0);
        assert_eq!(frame_bytes(&[store, elsewhere]), 4);
    }

    #[test]
    fn an_address_on_the_stack_that_is_passed_on_counts() {
        let copy = instruction(0xbf, 2, 10, 0, 0);
        let subtract = instruction(0x07, 2, 0, 0, -40);
        assert_eq!(frame_bytes(&[copy, subtract]), 40);
        assert_eq!(frame_bytes(&[subtract]), 0);
    }
}
