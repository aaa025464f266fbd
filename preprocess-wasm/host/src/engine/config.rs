//! What wasmtime is told: how instances are made, and what each may have at most, whatever its image.

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::SandboxConfig;
use crate::budget::MAX_TABLE_ELEMENTS;
use crate::lane::Lane;

/// What a guest's calls may use of its thread's stack. The thread's own is larger.
const GUEST_STACK_BYTES: usize = 1 << 20;

/// What is made anew after an image by writing it, instead of being given back to the system: each page of it that the next
/// image touches is then no page fault, of which a photo has 180. It is so much of the memory's beginning, and of each table's.
const KEPT_RESIDENT_BYTES: usize = 4 << 20;

/// Core instances in a component, memories in it, tables in it. The embedded one has one of each.
const MAX_CORE_INSTANCES: u32 = 8;
const MAX_MEMORIES: u32 = 1;
const MAX_TABLES: u32 = 4;

pub(super) fn wasmtime_config(config: &SandboxConfig) -> Config {
    // One more instance is made to see whether the component starts.
    let instances = 1 + Lane::ALL.map(|lane| lane.threads(config.workers)).iter().sum::<usize>();
    let instances = u32::try_from(instances).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MAX_MEMORIES))
        .total_tables(instances.saturating_mul(MAX_TABLES))
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_memory_size(config.limits.memory_bytes)
        .table_elements(MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEPT_RESIDENT_BYTES)
        .table_keep_resident(KEPT_RESIDENT_BYTES)
        // A scan for the pages that were written passes over those that the system has swapped out, and the next image's
        // instance would find them (bytecodealliance/wasmtime#14357). Without it the beginning of the memory is made anew
        // whatever was written, and the rest given back.
        .pagemap_scan(Enabled::No);
    let mut wasmtime = Config::new();
    wasmtime
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    wasmtime
}
