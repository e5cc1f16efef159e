# Sourced by the scripts of tests/ and demo/: headings, named checks, waiting, an end that cleans up.
# shellcheck shell=bash

began=$SECONDS # when the script started

step() { # TITLE...: a heading, with the time since the start
	echo
	echo "== $* (after $((SECONDS - began)) s)"
}

# Checks. A script may set check_output before its first check: the file that holds what the last
# command printed. It may define explain_failure anew, which prints more about a failed check.
passed=0 failed=0
check_output=target/check-output

check() { # CLAIM COMMAND...: prints whether the claim holds, that is, whether the command succeeds
	local claim=$1 since=$SECONDS verdict=ok
	shift
	if "$@" >"$check_output" 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		verdict=BAD
	fi
	printf '%-4s %s (%s s)\n' "$verdict" "$claim" $((SECONDS - since))
	if [ "$verdict" = BAD ]; then explain_failure || true; fi
}
explain_failure() { cat "$check_output"; }
print_counts() { # last, since CI and tests/all read this line: fails if a check failed
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
}

# Commands to put before another one in a check.
prints() { # PATTERN COMMAND...: the command prints it, whether it succeeds or not
	local pattern=$1 output
	shift
	output=$("$@" 2>&1) || true
	echo "$output"
	grep -qE -- "$pattern" <<<"$output"
}
fails() { ! "$@"; } # COMMAND...
within() {          # SECONDS COMMAND...: runs it until it succeeds, or gives up after that time
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		if [ $SECONDS -ge $end ]; then return 1; fi
		sleep "${within_pause:-0.5}"
	done
}

at_exit() { # FUNCTION: runs it when the script ends, by a signal too; it finds the exit code in $?
	# shellcheck disable=SC2064 # the name of the function is known now
	trap "$1" EXIT
	trap 'exit 130' INT TERM HUP
}
