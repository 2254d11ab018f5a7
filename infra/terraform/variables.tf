variable "region" {
  description = "AWS region of everything."
  type        = string
  default     = "us-east-1"
}

variable "bucket" {
  description = "Name of the bucket; bucket names are taken world-wide."
  type        = string
}

variable "kms_key_arn" {
  description = "KMS key that encrypts the bucket; null takes S3's own keys (AES256). The roles may use it."
  type        = string
  default     = null
}

variable "force_destroy" {
  description = "Whether `terraform destroy` may delete a bucket that is not empty, models included."
  type        = bool
  default     = false
}

variable "runs" {
  description = "Runs (prefixes <run>/ in the bucket) whose resumable training states expire. A lifecycle rule's prefix has no wildcard."
  type        = list(string)
  default     = ["first"]
}

variable "state_days" {
  description = "Days after which a training state expires: longer than any pause before a resume."
  type        = number
  default     = 30
}

variable "noncurrent_days" {
  description = "Days for which a replaced or deleted object can be brought back."
  type        = number
  default     = 14
}

variable "namespace" {
  description = "Kubernetes namespace of the jobs' ServiceAccounts."
  type        = string
  default     = "nanosft"
}

variable "oidc_provider_arn" {
  description = "IAM OIDC provider of an EKS cluster that is there already; null with create_cluster, or without any cluster (then no role is made)."
  type        = string
  default     = null
}

variable "pod_identity" {
  description = "Whether roles are given by EKS Pod Identity instead of the OIDC provider (IRSA): no ServiceAccount is annotated then."
  type        = bool
  default     = false
}

variable "cluster_name" {
  description = "An EKS cluster that is there already, with the Pod Identity agent; looked at with pod_identity and without create_cluster."
  type        = string
  default     = null
}

variable "create_cluster" {
  description = "Whether to make an EKS cluster with a CPU and a GPU node group."
  type        = bool
  default     = false
}

variable "cluster" {
  description = "The cluster to make; looked at with create_cluster only."
  type = object({
    name                = optional(string, "nanosft")
    version             = optional(string, "1.33")
    subnet_ids          = optional(list(string), [])
    public_access_cidrs = optional(list(string), [])
    cpu = optional(object({
      instance_types = optional(list(string), ["m7i.xlarge", "m6i.xlarge"])
      max_size       = optional(number, 8)
    }), {})
    gpu = optional(object({
      managed        = optional(bool, true)     # false: no node group, Karpenter makes nodes (infra/karpenter.yaml)
      capacity_type  = optional(string, "SPOT") # or ON_DEMAND
      instance_types = optional(list(string), ["p5.48xlarge"])
      max_size       = optional(number, 2)
      disk_gib       = optional(number, 200)
    }), {})
  })
  default = {}

  validation {
    condition     = contains(["SPOT", "ON_DEMAND"], var.cluster.gpu.capacity_type)
    error_message = "cluster.gpu.capacity_type: SPOT or ON_DEMAND."
  }

  validation {
    condition     = var.cluster.subnet_ids == null || length(var.cluster.subnet_ids) != 1
    error_message = "cluster.subnet_ids: EKS wants subnets in at least two availability zones."
  }
}
