# Sourced by what needs a browser: CHROMIUM is one, PLAYWRIGHT has playwright-core. Ends the script where there is none.
CHROMIUM=$(command -v chromium-headless-shell || command -v chromium || true)
if [ -z "$CHROMIUM" ] || ! command -v npm >/dev/null; then
    echo "skipped: $(basename "$0" .sh) in a browser: apt install chromium-headless-shell nodejs npm"
    exit 0
fi
mkdir -p "$3/browser"
PLAYWRIGHT=$(cd "$3/browser" && pwd)
test -d "$PLAYWRIGHT/node_modules/playwright-core" ||
    npm install --silent --no-audit --no-fund --prefix "$PLAYWRIGHT" playwright-core@1
export CHROMIUM PLAYWRIGHT
