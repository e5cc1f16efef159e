# Sourced by demo/run and quickstart/run: numbered steps, notes, commands as if typed.
# shellcheck shell=bash

bold='' dim='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi
number=0 step_began=''
begin_step() { # TITLE: ends the step before
	end_step
	step_began=$SECONDS number=$((number + 1))
	echo "$bold$number. $1$plain"
}
end_step() {
	if [ -n "$step_began" ]; then echo "$dim   took $((SECONDS - step_began)) s$plain"; fi
	step_began=''
}
note() { printf '   %s\n' "$@"; } # LINE...
quietly() { # COMMAND...: its output only if it fails
	local output
	if ! output=$("$@" 2>&1); then
		printf '%s\n' "$output" >&2
		return 1
	fi
}
show() { # COMMAND...: the command and its output, as if typed
	note "\$ $*"
	"$@" 2>&1 | sed 's/^/     /'
}
build() { # PROFILE WHAT...: builds these with cargo, and prints what it says besides the names of crates
	cargo build --locked --profile "$1" "${@:2}" 2>&1 | grep -vE '^ +(Compiling|Downloaded|Downloading|Locking|Updating) ' | sed 's/^ */   /'
}
folder_of() { # PROFILE: where cargo leaves its programs
	if [ "$1" = dev ]; then echo target/debug; else echo "target/$1"; fi
}
