# Sourced by scripts that need the rig: starts what is down, and at the end stops that and nothing else.
# shellcheck shell=bash

# The cluster's sockets are in this folder, and the path of a socket has at most 107 characters.
if [ -z "${RIG:-}" ] && [ ${#PWD} -gt 55 ]; then
	RIG=/tmp/outbox-rig-$(cksum <<<"$PWD" | cut -d' ' -f1)
	export RIG_PROGRAMS=$PWD/target/rig/programs
fi
export RIG=${RIG:-$PWD/target/rig}
rig_started=()

rig_up() { # PART[:ARGUMENT,...]...
	local part
	for part; do
		if tests/rig/rig status "$part" >/dev/null 2>&1; then continue; fi
		rig_started=("$part" "${rig_started[@]}")
		tests/rig/rig up "$part" | sed "s/^/   /" || return
	done
	# shellcheck source=/dev/null
	. "$RIG/env"
	export PATH=${RIG_BIN:+$RIG_BIN:}$PATH # without Kubernetes there is none
}
rig_down() { # the last first
	local part
	for part in "${rig_started[@]}"; do tests/rig/rig down "$part"; done
	rig_started=()
}
