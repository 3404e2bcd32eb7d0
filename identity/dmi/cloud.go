package dmi

// clouds are the vendors that stand for one cloud each. A maker of machines or hypervisors whose customers run clouds of
// their own (Dell, QEMU, Microsoft's Hyper-V, VMware) is none.
var clouds = map[string]string{
	"Akamai":               "Akamai",
	"Alibaba Cloud":        "Alibaba Cloud",
	"Amazon EC2":           "Amazon EC2",
	"DigitalOcean":         "DigitalOcean",
	"Exoscale":             "Exoscale",
	"Google":               "Google Cloud",
	"Hetzner":              "Hetzner Cloud",
	"Linode":               "Akamai",
	"OpenStack Foundation": "OpenStack",
	"Scaleway":             "Scaleway",
	"Tencent Cloud":        "Tencent Cloud",
	"UpCloud":              "UpCloud",
	"Vultr":                "Vultr",
}

// Cloud is the cloud that the vendor is known to be, or empty.
func (f Facts) Cloud() string { return clouds[f.Vendor] }
