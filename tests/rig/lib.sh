# Sourced by the rig's scripts: where things are, processes, ports, network, certificates, the env file.
# shellcheck shell=bash
set -euo pipefail

rig=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RIG=${RIG:-$(cd "$rig/../.." && pwd)/target/rig} # all that the rig makes
mkdir -p "$RIG"/{run,log,data}
RIG=$(cd "$RIG" && pwd)
PROGRAMS=${RIG_PROGRAMS:-$RIG/programs} # what install fetched and built; several checkouts may share it
NET=10.244.0                            # pods get $NET.2 to $NET.199
HOST=$NET.1                             # this machine, as pods reach it
BRIDGE=rig0
SHIFT=${RIG_SHIFT:-0}                   # added to the ports; a rig whose ports are shifted has no pods and needs no root
if [ $EUID != 0 ] || [ "$SHIFT" != 0 ]; then HOST=127.0.0.1; fi

die() {
	echo "rig: $*" >&2
	exit 1
}
usage() { # the first comment of the script
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
	exit 2
}
lock() { # PART: waits for another run of the same part; until the end of this one
	exec 9>"$RIG/run/$1.lock"
	flock 9
}
packages() { # PROGRAM:PACKAGE...: installs Debian's packages whose program is missing
	local pair missing=()
	for pair; do
		if ! command -v "${pair%%:*}" >/dev/null; then missing+=("${pair#*:}"); fi
	done
	if [ ${#missing[@]} = 0 ]; then return; fi
	if [ $EUID != 0 ]; then die "please install as root: apt-get install ${missing[*]}"; fi
	export DEBIAN_FRONTEND=noninteractive
	if ! apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
	fi
}
network_programs=(ss:iproute2)
if [ $HOST != 127.0.0.1 ]; then network_programs+=(ip:iproute2 nft:nftables); fi

# Processes. A pid file holds the pid and when that process started, so that neither a reused pid nor a
# process that has ended and waits to be reaped is taken for ours.
started() { # PID
	local stat
	{ stat=$(<"/proc/$1/stat"); } 2>/dev/null || return
	read -ra stat <<<"${stat##*) }"
	[[ ${stat[0]} != [ZX] ]] && echo "${stat[19]}"
}
pid() { cut -d' ' -f1 "$RIG/run/$1.pid"; }
record() { echo "$2 $(started "$2")" >"$RIG/run/$1.pid"; } # NAME PID
alive() {                                                  # NAME
	local pid since
	{ read -r pid since <"$RIG/run/$1.pid"; } 2>/dev/null && [ "$(started "$pid")" = "$since" ]
}
start() { # NAME COMMAND...: in the background and in a session of its own
	local name=$1
	shift
	alive "$name" && return
	if [ -e "$RIG/log/$name.log" ]; then mv -f "$RIG/log/$name.log" "$RIG/log/$name.log.old"; fi
	setsid nohup "$@" >"$RIG/log/$name.log" 2>&1 </dev/null 9>&- &
	record "$name" $!
	disown # bash would print that a process was killed
}
stop() { # SIGNAL NAME...: all at once, the ones that are left after 20 seconds by force
	local signal=$1 name i
	shift
	for name; do
		if alive "$name"; then kill -"$signal" "$(pid "$name")"; fi
	done
	for name; do
		for ((i = 0; i < 400; i++)); do
			alive "$name" || break
			sleep 0.05
		done
		if alive "$name"; then kill -KILL "$(pid "$name")"; fi
		rm -f "$RIG/run/$name.pid"
	done
}
await() { # SECONDS NAME COMMAND...: until the command succeeds, while the process is alive
	local end=$((SECONDS + $1)) name=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ! alive "$name" || [ $SECONDS -ge $end ]; then
			tail -n 15 "$RIG/log/$name.log" >&2
			die "$name is not up, its log: $RIG/log/$name.log; waited for: $*"
		fi
		sleep 0.1
	done
}
show() { # NAME WHERE: one line on a process; fails if it is not alive
	if ! alive "$1"; then
		echo "$1: down"
		return 1
	fi
	echo "$1: $2, pid $(pid "$1"), $(awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$(pid "$1")/status") MiB"
}
ports_free() { # PORT...: waits a little for one that has just been killed
	local port pid i
	for port; do
		for ((i = 0; i < 20; i++)); do
			if [ -z "$(ss -Hltn "sport = :$port")" ]; then continue 2; fi
			sleep 0.1
		done
		pid=$(ss -Hltnp "sport = :$port" | sed -n 's/.*pid=\([0-9]*\).*/\1/p' | head -n 1)
		[ -n "$pid" ] || die "port $port is in use by a process of another user"
		die "port $port is in use by pid $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c1-200))"
	done
}
listens() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; } # ADDRESS PORT

# The bridge of the pods, made here so that servers can listen on its address before there is a cluster.
# Nothing that a pod sends leaves this machine. Without pods there is none.
network() {
	local other
	if [ $HOST = 127.0.0.1 ]; then return; fi
	other=$(ip -o -4 addr show to "$HOST/32" | awk -v bridge=$BRIDGE '$2 != bridge {print $2; exit}')
	if [ -n "$other" ]; then die "$HOST is the address of $other already: remove that first (ip link del $other)"; fi
	ip link show $BRIDGE >/dev/null 2>&1 || ip link add $BRIDGE type bridge
	if [ -z "$(ip -o -4 addr show dev $BRIDGE to "$HOST/32")" ]; then ip addr add "$HOST/24" dev $BRIDGE; fi
	# An address of its own: otherwise it changes as pods come and go, and the others lose their way for a while.
	ip link set $BRIDGE address 02:00:0a:f4:00:01 up
	nft -f - <<-NFT
		table inet rig
		delete table inet rig
		table inet rig {
			chain input { # the API server cannot listen on two addresses only
				type filter hook input priority 0
				iifname != { "lo", "$BRIDGE" } tcp dport 6443 reject
			}
			chain forward {
				type filter hook forward priority 0
				iifname "$BRIDGE" oifname != "$BRIDGE" reject
			}
		}
	NFT
}
network_down() { # unless some server, maybe of another checkout, listens there
	if [ $HOST = 127.0.0.1 ] || [ -n "$(ss -Hltn src "$HOST")" ]; then return; fi
	nft delete table inet rig 2>/dev/null || true
	ip link del $BRIDGE 2>/dev/null || true
}

# A throw-away authority, a server certificate for all servers, a client certificate for "relay", and
# a rogue pair of the same names from another authority.
certificates() (
	read -ra more <<<"${RIG_NAMES:-}"
	san=IP:127.0.0.1,IP:$HOST$(printf ',DNS:%s' localhost \
		{file-service-db-rw,kafka-kafka-bootstrap}{,.essays,.kafka} \
		\*.{essays,kafka}.svc{,.cluster.local} "${more[@]}")
	mkdir -p "$RIG/tls"
	cd "$RIG/tls"
	umask 077
	key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }
	authority() { # NAME
		key "$1"
		openssl req -x509 -new -key "$1.key" -days 3650 -subj "/CN=rig-$1" -out "$1.crt" \
			-addext keyUsage=critical,keyCertSign,cRLSign
	}
	leaf() { # NAME CN AUTHORITY EXTENSION...
		local name=$1 cn=$2 ca=$3
		shift 3
		key "$name"
		openssl req -new -key "$name.key" -subj "/CN=$cn" |
			openssl x509 -req -CA "$ca.crt" -CAkey "$ca.key" -CAcreateserial -days 3650 -out "$name.crt" \
				-extfile <(printf '%s\n' basicConstraints=CA:FALSE "$@") 2>/dev/null
		cat "$name.key" "$name.crt" "$ca.crt" >"$name.pem" # as Kafka likes it
	}
	if [ ! -e rogue.pem ]; then
		authority ca
		authority rogue-ca
		leaf client relay ca extendedKeyUsage=clientAuth
		leaf rogue relay rogue-ca extendedKeyUsage=clientAuth,serverAuth "subjectAltName=$san"
	fi
	if [ "$(cat names 2>/dev/null)" != "$san" ]; then
		leaf server localhost ca extendedKeyUsage=serverAuth "subjectAltName=$san"
		echo "$san" >names
	fi
)
common() { # what every part needs before its servers start
	{
		flock 8
		network
		certificates
	} 8>"$RIG/run/common.lock"
}

# $RIG/env, for shells and tests: sorted lines "export NAME=VALUE" on what is up.
env_file() { # PATTERN [NAME=VALUE...]: these instead of all whose names match
	local pattern=$1
	shift
	{
		flock 8
		{
			grep -vE "^export ($pattern|RIG|RIG_HOST|RIG_TLS)=" "$RIG/env" 2>/dev/null || true
			printf 'export %s\n' "RIG=$RIG" "RIG_HOST=$HOST" "RIG_TLS=$RIG/tls" "$@"
		} | LC_ALL=C sort >"$RIG/env.new"
		mv "$RIG/env.new" "$RIG/env"
	} 8>"$RIG/run/env.lock"
}
