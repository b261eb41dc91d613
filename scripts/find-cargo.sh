# shellcheck shell=bash
# Sourced by the other scripts: finds cargo, also under sudo, where HOME is root's.
PATH=$PATH:/usr/sbin:/sbin
for home in "$HOME" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
    if ! command -v cargo >/dev/null && [[ -x $home/.cargo/bin/cargo ]]; then
        PATH=$home/.cargo/bin:$PATH
        export RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup} CARGO_HOME=${CARGO_HOME:-$home/.cargo}
    fi
done
export PATH
