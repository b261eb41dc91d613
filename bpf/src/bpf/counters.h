/* SPDX-License-Identifier: (GPL-2.0 OR BSD-3-Clause) */
/*
 * What became of a packet, one counter per verdict and reason. Every packet
 * raises exactly one of them. The list below is the only one in C; the Rust
 * enum `Counter` has the same names in the same order (a unit test compares).
 */
#ifndef BRAID_COUNTERS_H
#define BRAID_COUNTERS_H

#define STEER_COUNTERS(X)                                                      \
	/* to an AF_XDP socket */                                              \
	X(SteerRedirectTcp4)                                                   \
	X(SteerRedirectTcp6)                                                   \
	X(SteerRedirectIcmp4)                                                  \
	X(SteerRedirectIcmp6)                                                  \
	/* ours, and worse than lost if the kernel saw it */                   \
	X(SteerDropNoSocket)                                                   \
	X(SteerDropFirstFragment)                                              \
	/* to the kernel: not ours */                                          \
	X(SteerPassNotIp)                                                      \
	X(SteerPassGroupMac)                                                   \
	X(SteerPassNotTcp)                                                     \
	X(SteerPassIcmpOther)                                                  \
	X(SteerPassNoClaim)                                                    \
	X(SteerPassRoutingHeader)                                              \
	/* to the kernel: the dataplane is dead or hangs */                    \
	X(SteerPassHeartbeatStale)                                             \
	/* to the kernel: not classified */                                    \
	X(SteerPassNonFirstFragment)                                           \
	X(SteerPassTruncated)                                                  \
	X(SteerPassHeadersInFrags)                                             \
	X(SteerPassMalformed)                                                  \
	X(SteerPassExtHeaderLimit)                                             \
	X(SteerPassVlanDepth)

enum steer_counter {
#define STEER_ENUM(name) name,
	STEER_COUNTERS(STEER_ENUM)
#undef STEER_ENUM
	STEER_COUNTER_MAX,
};

/* What a parser returns when it has no reason to stop. */
#define PARSED STEER_COUNTER_MAX

#endif
