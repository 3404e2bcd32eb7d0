package talos

import (
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/resource/meta"
	"github.com/cosi-project/runtime/pkg/resource/typed"
	"github.com/siderolabs/talos/pkg/machinery/resources/network"
)

// HostnameWaitType is type of HostnameWait resource.
const HostnameWaitType = resource.Type("HostnameWaits.net.talos.dev")

// HostnameWaitID is the ID of the singleton instance.
const HostnameWaitID resource.ID = "hostname"

// HostnameWait says whether the node's name is still being waited for. As long as it is, or as long as the resource is
// not there, nobody invents one.
type HostnameWait = typed.Resource[HostnameWaitSpec, HostnameWaitExtension]

// HostnameWaitSpec describes the wait.
type HostnameWaitSpec struct {
	Pending bool   `yaml:"pending"`
	Reason  string `yaml:"reason"`
}

// DeepCopy implements typed.DeepCopyable.
func (s HostnameWaitSpec) DeepCopy() HostnameWaitSpec { return s }

// HostnameWaitExtension provides auxiliary methods for HostnameWait.
type HostnameWaitExtension struct{}

// ResourceDefinition implements typed.Extension interface.
func (HostnameWaitExtension) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{Type: HostnameWaitType, DefaultNamespace: network.NamespaceName}
}

// NewHostnameWait initializes a HostnameWait resource.
func NewHostnameWait() *HostnameWait {
	return typed.NewResource[HostnameWaitSpec, HostnameWaitExtension](
		resource.NewMetadata(network.NamespaceName, HostnameWaitType, HostnameWaitID, resource.VersionUndefined),
		HostnameWaitSpec{},
	)
}
