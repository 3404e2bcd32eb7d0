# nametag as its release has it: a static program, and its unit, which here runs the program from the store. The hash is
# that of the package in SHA256SUMS of the release, as `nix-hash --type sha256 --to-sri HEX` writes it.
{ stdenvNoCC, fetchurl, dpkg }:

stdenvNoCC.mkDerivation rec {
  pname = "nametag";
  version = "0.1.0";

  src = fetchurl {
    url = "https://github.com/nametag-boot/nametag/releases/download/v${version}/nametag_${version}_amd64.deb";
    hash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
  };

  nativeBuildInputs = [ dpkg ];

  unpackPhase = "dpkg-deb -x $src .";

  installPhase = ''
    runHook preInstall
    install -D -m 0755 usr/bin/nametag $out/bin/nametag
    install -D -m 0644 usr/lib/systemd/system/nametag.service $out/lib/systemd/system/nametag.service
    substituteInPlace $out/lib/systemd/system/nametag.service --replace-fail /usr/bin/nametag $out/bin/nametag
    install -D -m 0644 -t $out/share/man/man1 usr/share/man/man1/*
    runHook postInstall
  '';

  meta = {
    description = "A server's name before its first service starts";
    homepage = "https://github.com/nametag-boot/nametag";
    platforms = [ "x86_64-linux" ];
    mainProgram = "nametag";
  };
}
