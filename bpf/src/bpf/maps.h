/* SPDX-License-Identifier: (GPL-2.0 OR BSD-3-Clause) */
/*
 * Maps. `claims`, `heartbeat` and `counters` are one for all interfaces (the
 * loader makes later instances reuse the first ones), so that one update
 * covers them all. `xsks` belongs to one interface: its key is a queue. So does
 * `memory`, which is nobody else's business.
 */
#ifndef BRAID_MAPS_H
#define BRAID_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"

/* Ten thousand active opens, each with its own port, times a few addresses.
 * Elements are allocated as they come, so an unused map costs its buckets. */
#define CLAIMS_MAX 65536

/* More receive queues than any NIC has; 8 bytes each. */
#define QUEUES_MAX 1024

#define CLAIM_FAMILY_IPV4 4
#define CLAIM_FAMILY_IPV6 6

/* A local transport address that is braid's. All bytes count, so that a
 * wildcard (address all zero) of IPv4 and one of IPv6 differ. */
struct claim_key {
	__u8 address[16]; /* IPv4 as ::ffff:a.b.c.d */
	__be16 port;
	__u8 family; /* CLAIM_FAMILY_* */
	__u8 zero;
};
_Static_assert(sizeof(struct claim_key) == 20, "a whole number of words: jhash2");

/* For people and for the control plane: steer looks only at presence. */
struct claim_value {
	__u32 kind;
	__u32 tag;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CLAIMS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct claim_key);
	__type(value, struct claim_value);
} claims SEC(".maps");

/* CLOCK_MONOTONIC in ns when the dataplane last said that it lives; 0: it does
 * not. One slot: the question is whether the process serves its sockets at
 * all; a single worker that hangs is the supervisor's business. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} heartbeat SEC(".maps");

/* Ports whose wildcards are remembered per CPU. A power of two. */
#define WILDCARDS_REMEMBERED 64

/* What this CPU remembers of earlier packets. */
struct memory {
	/* The last beat that was found fresh, and the clock tick when it was. */
	__u64 beat_ns;
	__u64 jiffies;
	/* Ports, by their low bits, that were last found claimed for every address.
	 * Only a guess at which claim to look for first. */
	__be16 wildcards[WILDCARDS_REMEMBERED];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct memory);
} memory SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STEER_COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

#endif
