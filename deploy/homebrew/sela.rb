# Sela for Homebrew, built from source: `brew install --HEAD ./sela.rb`.
class Sela < Formula
  desc "Local-first engine that embeds text and keeps and searches vectors"
  homepage "https://github.com/sela-rs/sela"
  license any_of: ["MIT", "Apache-2.0"]
  head "https://github.com/sela-rs/sela.git", branch: "main"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args(path: "crates/sela-cli")
  end

  service do
    run [opt_bin/"sela", "serve"]
    environment_variables SELA_HOME: var/"sela", SELA_SERVER_LOG_FORMAT: "json"
    keep_alive successful_exit: false
    working_dir var
    log_path var/"log/sela.log"
    error_log_path var/"log/sela.log"
  end

  def caveats
    <<~TEXT
      `sela init` makes settings, fetches the model and prints an admin key. For the service:
        SELA_HOME=#{var}/sela sela init
    TEXT
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/sela --version") unless build.head?
    ENV["SELA_HOME"] = testpath.to_s
    assert_match "[server]", shell_output("#{bin}/sela serve --print-config")
  end
end
