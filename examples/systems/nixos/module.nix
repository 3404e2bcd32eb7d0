# NixOS with nametag as a service of the real root, before every other. In the machine's configuration:
#
#   imports = [ ./module.nix ];
#   services.nametag.enable = true;
#
# The name is a machine's own, so the configuration has none: networking.hostName is "".
{ config, lib, pkgs, ... }:

let
  cfg = config.services.nametag;
in
{
  options.services.nametag = {
    enable = lib.mkEnableOption "this server's name, from Hetzner Cloud, before its first service starts";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = "./package.nix";
      description = "The nametag that the unit runs.";
    };

    wait = lib.mkOption {
      type = lib.types.str;
      default = "2m";
      example = "90s,then=continue";
      description = "The value of the kernel argument nametag.wait=: how long to wait, and what to do when there is no name by then.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = config.networking.hostName == "";
        message = "services.nametag: networking.hostName names this machine, and ends the matter; set it to \"\", or leave nametag out";
      }
    ];

    networking.hostName = lib.mkDefault "";
    boot.kernelParams = [ "nametag.wait=${cfg.wait}" ];

    # The unit comes with the package. The generator reads the kernel argument at each boot, pulls the unit in, and gives it
    # the policy's ending.
    systemd.packages = [ cfg.package ];
    systemd.generators.nametag-generator = "${cfg.package}/bin/nametag";

    environment.systemPackages = [ cfg.package ];
  };
}
